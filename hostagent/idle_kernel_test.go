//go:build kernel

package hostagent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/bridges"
	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/filter/filtertest"
	"github.com/bladenet/bladenet/policy/nft"
)

// largeFleet is one blade with real servers and services, each server in four of them.
func largeFleet(servers, services int) policy.File {
	var b strings.Builder
	b.WriteString("zones: [public]\nsites: [lombarderie]\nblades:\n  lame-l1: {site: lombarderie, zone: public, trunk: eno1}\nnetworks:\n")
	b.WriteString("  up: {zone: public, role: uplink, vlan: 111, subnets: [10.1.0.0/16], routers: [10.1.0.1]}\n  service: {zone: public, role: service, vlan: 120, subnets: [10.2.0.0/16]}\n")
	b.WriteString("  return: {zone: public, role: return, vlan: 130, subnets: [10.3.0.0/16], routers: [10.3.0.1]}\nservices:\n")
	for i := range services {
		fmt.Fprintf(&b, "  s%d: {zone: public, vips: [10.9.%d.%d], ports: [80/tcp]}\n", i, i/200, 1+i%200)
	}
	b.WriteString("realservers:\n")
	for i := range servers {
		var serves []string
		for k := range 4 {
			serves = append(serves, fmt.Sprintf("s%d: {}", (4*i+k)%services))
		}
		fmt.Fprintf(&b, "  g%d: {blade: lame-l1, image: web, serves: {%s}, eth0: {network: return, addresses: [10.3.%d.%d]}, eth1: {network: service, addresses: [10.2.%d.%d]}}\n",
			i, strings.Join(serves, ", "), 1+i/200, 1+i%200, 1+i/200, 1+i%200)
	}
	return policy.File{Name: "large.yaml", Data: []byte(b.String())}
}

// BenchmarkIdlePass is what 256 guests and 1 000 services cost when there is nothing to do. Links, namespaces, what is inside them and the filter are real, the
// latter less the rules that this kernel cannot load; the guests are noted, not run.
func BenchmarkIdlePass(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent)) // as bladed does
	a := largeBlade(b)
	quiet := func(api.Event) {}
	before := processorTime()
	for b.Loop() {
		_ = a.pass(b.Context(), nil)
	}
	spent := (processorTime() - before) / time.Duration(b.N)
	b.ReportMetric(float64(spent.Microseconds())/1000, "cpu-ms/pass")
	look := min(max(resync, thrift*spent), longestResync)
	b.ReportMetric(100*spent.Seconds()/(look+look/8).Seconds(), "%core-idle")
	debug.FreeOSMemory() // what bringing the blade up took is of no account minutes later
	begin := time.Now()
	out := a.walk(b.Context(), &pass{blade: a.wantedNow().blade})
	b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, "look-ms")
	if left := len(out.steps) - len(a.waiting); left > 0 {
		b.Errorf("%d steps are left to do: it is not idle: %v", left, out.steps[:min(3, left)])
	}
	begin = time.Now()
	if err := a.Apply(b.Context(), api.ApplyRequest{}, quiet); err != nil && len(a.waiting) == 0 {
		b.Error(err)
	}
	b.ReportMetric(float64(time.Since(begin).Microseconds())/1000, "apply-ms")
	b.ReportMetric(float64(rss(b))/(1<<20), "rss-MiB")
}

// largeBlade is an agent whose blade is as its policy says.
func largeBlade(b *testing.B) *Agent {
	b.Helper()
	path, _ := namespaceWith(b, "") // a kernel that has no dummies has no VLANs either: they wait
	driver := &recorder{created: map[policy.GuestName]guests.Spec{}}
	kernel, err := nft.NewKernel(path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { kernel.Close() })
	dir := b.TempDir()
	a, err := New(Config{
		Blade: "lame-l1", Policy: filepath.Join(dir, "policy"), State: dir, Log: slog.New(slog.DiscardHandler), Images: anyImage{}, Filter: kernel,
		Links:   bridges.NewKernel(bridges.Options{Namespace: path}),
		Drivers: map[policy.Driver]guests.Driver{policy.DriverLXC: driver},
		Dial: func(context.Context, uint32) (*channel.Client, error) {
			return nil, errors.New("there is no director in this test")
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	a.life = b.Context()
	for i, s := range a.order {
		if s.name == "filter" {
			a.order[i].plan = reducedFilter(a, kernel)
		}
	}
	if err := os.Mkdir(a.cfg.Policy, 0o755); err != nil {
		b.Fatal(err)
	}
	large := largeFleet(256, 1000)
	if err := os.WriteFile(filepath.Join(a.cfg.Policy, large.Name), large.Data, 0o644); err != nil {
		b.Fatal(err)
	}
	begin := time.Now()
	if err := a.enforceFolder("large", func(e api.Event) { b.Log(e.Diagnostics) }); err != nil {
		b.Fatal(err)
	}
	b.Logf("checked and derived in %s", time.Since(begin).Round(time.Millisecond))
	begin = time.Now()
	_ = a.pass(b.Context(), nil) // a kernel without VLANs has none; the rest stands
	b.Logf("brought up in %s; left waiting: %d", time.Since(begin).Round(time.Millisecond), len(a.waiting))
	b.Cleanup(func() {
		if err := a.Dismantle(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return a
}

// reducedFilter is the filter's stage with the rules that this kernel can load.
func reducedFilter(a *Agent, kernel *nft.Kernel) func(context.Context, *pass) (work, error) {
	var of filter.Ruleset
	var less nft.Wanted
	return func(ctx context.Context, p *pass) (work, error) {
		have, err := kernel.Observe(ctx)
		if err != nil {
			return work{}, err
		}
		whole, err := a.reading.compile(p.blade)
		if err != nil {
			return work{}, err
		}
		if len(of.Tables) == 0 || &whole.Ruleset.Tables[0] != &of.Tables[0] {
			of = whole.Ruleset
			reduced, _ := filtertest.Reduced(of)
			if less, err = nft.Prepare(reduced, less); err != nil {
				return work{}, err
			}
		}
		steps := less.Plan(have)
		w := work{apply: func(ctx context.Context) error { return kernel.Apply(ctx, steps) }}
		for _, s := range steps {
			w.steps = append(w.steps, s.Step)
		}
		if len(steps) == 0 {
			w.apply = nil
		}
		return w, nil
	}
}

// rss is the resident memory of this process in bytes (proc(5): the second number of statm, in pages).
func rss(b *testing.B) int64 {
	b.Helper()
	var size, resident int64
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(text), &size, &resident)
	}
	if err != nil {
		b.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}
