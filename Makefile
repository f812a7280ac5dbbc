# Two commands do it all on a Debian 12 machine, as root, with Go: `make demo` and `make test`.

SHELL := /bin/bash
GO ?= go
# bladed opens libvirt at run time: it starts, and runs containers, on a blade that has none.
TAGS := libvirt_dlopen
PACKAGES := gcc libc6-dev pkg-config lxc-dev qemu-system-x86 qemu-utils mmdebstrap e2fsprogs cpio kmod busybox-static
# What the product is measured against.
PEERS := nftables iptables ipset ebtables iproute2
IMAGES := build/images
LAB ?= make
# Build tags of the tests that need more than a machine with Go.
LEVELS := kernel,lab
# Packages with tests that need a blade's kernel.
KERNEL = $(shell grep -rlE "^//go:build kernel" --include=*_test.go bridges cmd guests hostagent packaging policy test/bench | xargs -n1 dirname | sort -u | sed "s|^|./|")

.PHONY: help deps build images package demo test lint unit kernel e2e systemd failover sites vrrp chaos soak crash differential bench bench-deps fuzz clean

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## install what the build, the images and the lab need (Debian 12, root)
	@missing=; for p in $(PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi

build: deps ## bin/: bladed, bladectl, bladeguest, lab
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/ ./cmd/bladectl ./cmd/bladeguest ./test/lab/cmd/lab
	$(GO) build -trimpath -tags $(TAGS) -o bin/bladed ./cmd/bladed

images: build ## build/images: what guests are cloned from
	bin/bladectl image build --store $(IMAGES) director web dns proxy ldap
	bin/bladectl image build --store $(IMAGES) --driver kvm web

VERSION ?= 0.1~$(shell git log -1 --format=%cd.%h --date=format:%Y%m%d)
package: build ## build/packages: Debian packages of bladed and bladectl, of the helper in directors, of the images' recipes
	$(GO) run ./packaging --version $(VERSION)

demo: images ## boot the lab and show a user's requests answered over a v4 and a v6 VIP
	$(GO) run ./test/demo

test: lint unit ## everything: lint, unit, kernel and end-to-end tests
	$(MAKE) --jobs 2 --output-sync=target kernel e2e sites systemd vrrp # two labs of one processor each

lint: deps ## formatting, vet, staticcheck
	@test -z "$$($(GO) tool gofumpt -l . | tee /dev/stderr)"
	$(GO) vet -tags $(TAGS),$(LEVELS) ./...
	$(GO) tool staticcheck -tags $(TAGS),$(LEVELS) ./...

unit: deps ## what needs neither root nor a special kernel
	$(GO) test -race -tags $(TAGS) ./...

kernel: images ## what needs the kernel of a blade: namespaces, links, rules, guests, in the lab
	bin/lab down --name $(LAB)-kernel
	trap 'bin/lab down --name $(LAB)-kernel' EXIT; bin/lab up --name $(LAB)-kernel && bin/lab test --name $(LAB)-kernel $(KERNEL)

e2e: images ## the product as a user has it, and the lab itself
	bin/lab down --name $(LAB)-e2e
	trap 'bin/lab down --name $(LAB)-e2e' EXIT; bin/lab up --name $(LAB)-e2e && bin/lab test --name $(LAB)-e2e -v --run 'Module|Day' --timeout 20m ./test/e2e
	bin/lab down --name $(LAB)-two
	trap 'bin/lab down --name $(LAB)-two' EXIT; bin/lab up --name $(LAB)-two --blades 2 --fleet test/fleets/two-blades --agent && \
	bin/lab test --name $(LAB)-two --in machine -v --run TestDirectReturn --timeout 15m ./test/e2e/twoblades
	$(GO) test -tags lab ./test/lab/...

systemd: images package ## the Debian packages on a blade with systemd, in the lab
	LAB_NAME=$(LAB) $(GO) test -tags lab -v -count 1 -timeout 30m -run Packages ./test/e2e/systemd

failover: images ## kill a director under 200 sessions, in namespaces and over two blades in the lab
	bin/lab down --name $(LAB)-failover
	trap 'bin/lab down --name $(LAB)-failover' EXIT; bin/lab up --name $(LAB)-failover --blades 2 --fleet test/fleets/two-blades --agent && \
	bin/lab test --name $(LAB)-failover --in machine -v --run TestADirectorDies --timeout 25m ./test/e2e/twoblades
	bin/lab down --name $(LAB)-failover
	trap 'bin/lab down --name $(LAB)-failover' EXIT; bin/lab up --name $(LAB)-failover && \
	bin/lab test --name $(LAB)-failover -v --env BLADENET_FAILOVER=all --run ADirectorDies ./cmd/bladeguest

sites: images ## two sites, one director by OSPF and one by BGP: locality, a site cut off, a director drained, in the lab
	bin/lab down --name $(LAB)-sites
	trap 'bin/lab down --name $(LAB)-sites' EXIT; bin/lab up --name $(LAB)-sites --blades 2 --fleet test/fleets/two-sites --agent && \
	bin/lab test --name $(LAB)-sites --in machine -v --run TestTwoSites --timeout 15m ./test/e2e/twoblades

vrrp: images ## two directors on a LAN without a routing protocol: one dies, hangs, loses its real servers, is drained, in the lab
	bin/lab down --name $(LAB)-vrrp
	trap 'bin/lab down --name $(LAB)-vrrp' EXIT; bin/lab up --name $(LAB)-vrrp --blades 2 --fleet test/fleets/vrrp --agent && \
	bin/lab test --name $(LAB)-vrrp --in machine -v --run TestVRRPPair --timeout 15m ./test/e2e/twoblades

CHAOS ?= 10m
RESTARTS ?= 100
chaos: images ## harm a blade for CHAOS, then end its agent RESTARTS times under requests, in the lab
	bin/lab down --name $(LAB)-chaos
	trap 'bin/lab down --name $(LAB)-chaos' EXIT; bin/lab up --name $(LAB)-chaos && \
	bin/lab test --name $(LAB)-chaos -v --env BLADENET_CHAOS=$(CHAOS) --env BLADENET_RESTARTS=$(RESTARTS) --timeout 1h --run 'Chaos|Restarts' ./test/e2e

SOAK ?= 1h
soak: images ## change the policy once a second for SOAK, in the lab: nothing that the agent holds grows
	bin/lab down --name $(LAB)-soak
	trap 'bin/lab down --name $(LAB)-soak' EXIT; bin/lab up --name $(LAB)-soak --ttl 6h && \
	bin/lab test --name $(LAB)-soak -v --env BLADENET_SOAK=$(SOAK) --timeout 6h --run Soak ./test/e2e

PACKETS ?= 6000
FLEETS ?= 25
differential: images ## 111 000 drawn packets through Judge and a blade's kernel, in the lab; PACKETS and FLEETS choose
	bin/lab down --name $(LAB)-differential
	trap 'bin/lab down --name $(LAB)-differential' EXIT; bin/lab up --name $(LAB)-differential && \
	bin/lab test --name $(LAB)-differential -v --timeout 1h --run AgreesWithKernel ./policy/nft -- -packets $(PACKETS) -fleets $(FLEETS)

crash: build ## kill the agent after every single step of bringing a blade up, of ten changes, of a spawn, a destroy and a reclone, in the lab; takes long
	bin/lab down --name $(LAB)-crash
	trap 'bin/lab down --name $(LAB)-crash' EXIT; bin/lab up --name $(LAB)-crash --ttl 6h && \
	bin/lab test --name $(LAB)-crash -v --env BLADENET_CRASH_EVERY_STEP=1 --timeout 2h --run 'TestAKillAfterAnyStep|TestBladedKilled' ./hostagent ./cmd/bladed

BENCH ?=
bench: images bench-deps ## rows of docs/performance.md against their peers, to build/bench.json; BENCH=P1,R2 chooses
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/bench ./test/bench
	bin/bench --rows "$(BENCH)" --json build/bench.json --markdown build/bench.md --lab bin/lab

bench-deps: deps ## install what the product is measured against (Debian 12, root)
	@missing=; for p in $(PEERS); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; fi

FUZZTIME ?= 30s
fuzz: deps ## each fuzz test for FUZZTIME
	@grep -rHoE '^func Fuzz[A-Za-z0-9]+' --include=*_test.go . | sed 's/:func / /' | while read -r file name; do \
	  echo "$$name in $$(dirname $$file)"; $(GO) test -tags $(TAGS) -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$(dirname $$file) || exit 1; done

clean: ## remove what was built here (not the cache of the lab's disk)
	rm -rf bin build
