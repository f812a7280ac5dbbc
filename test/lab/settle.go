package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/bladenet/bladenet/test/lab/guest"
)

// settle makes the machine a blade with a router and a user beside it.
func (u *start) settle(ctx context.Context) error {
	if err := u.spaces(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wait sync.WaitGroup
	var errs [2]error
	for i, do := range []func(context.Context) error{u.virtualization, u.network} {
		wait.Go(func() {
			if errs[i] = do(ctx); errs[i] != nil {
				cancel(errs[i])
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if u.options.Agent {
		return u.agents(ctx)
	}
	return nil
}

// script runs a shell script in a place and puts what it said into the error.
func (u *start) script(ctx context.Context, in, text string, stdin io.Reader) error {
	var out bytes.Buffer
	status, err := execAt(ctx, u.running.Port, u.spec.Token, Command{In: in, Args: []string{"/bin/sh", "-euc", text}, Stdin: stdin, Stdout: &out, Stderr: &out})
	if err == nil && status != 0 {
		err = fmt.Errorf("status %d: %s", status, lastLines(out.String(), 10))
	}
	return err
}

// spaceScript makes a named network and mount namespace that shows its own links in /sys. Mounts of the machine reach it.
func spaceScript(name, more string) string {
	return fmt.Sprintf(`touch %[1]s/%[2]s.mnt /run/netns/%[2]s
unshare --mount=%[1]s/%[2]s.mnt --net=/run/netns/%[2]s --propagation slave /bin/sh -euc '
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
%[3]s'
`, guest.Spaces, name, more)
}

// spaces makes the namespaces and brings the policy files.
func (u *start) spaces(ctx context.Context) error {
	text := spaceScript("router", sysctlScript(true)) + spaceScript("client", sysctlScript(false))
	if err := u.script(ctx, "", text, nil); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	files, err := policyTar(u.options.Fleet)
	if err != nil {
		return fmt.Errorf("read policy: %w", err)
	}
	if err := u.script(ctx, "", "tar -x -C /etc/bladenet", bytes.NewReader(files)); err != nil {
		return fmt.Errorf("bring policy: %w", err)
	}
	return nil
}

// policyTar packs the policy files of a folder.
func policyTar(dir string) ([]byte, error) {
	files, err := fleetFiles(dir)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.Base(file), Mode: 0o644, Size: int64(len(data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return b.Bytes(), err
}

// network makes the links of blade, router and client and starts the router's daemons.
func (u *start) network(ctx context.Context) error {
	t := u.topology
	for _, part := range []struct{ space, links string }{
		{"router", t.routerLinks(func(int) string { return "1" })},
		{"", t.bladeLinks(0)},
		{"client", t.clientLinks()},
	} {
		if err := u.script(ctx, part.space, "ip -batch -", strings.NewReader(part.links)); err != nil {
			return fmt.Errorf("make links of %s: %w", or(part.space, "blade"), err)
		}
	}
	u.say("router and client have their links")
	if err := u.script(ctx, "router", routerScript(t.frrConfigs()), nil); err != nil {
		return fmt.Errorf("start router: %w", err)
	}
	u.say("router speaks OSPF, BGP and BFD")
	return nil
}

// routerScript writes FRR's files and starts its daemons; each returns when it listens.
func routerScript(configs []frrConfig) string {
	var b strings.Builder
	b.WriteString("mkdir -p /etc/frr/router /var/run/frr/router\n: >/etc/frr/router/vtysh.conf\n")
	for _, c := range configs {
		fmt.Fprintf(&b, "cat >/etc/frr/router/%s.conf <<'END'\n%sEND\n", c.daemon, c.text)
	}
	b.WriteString("chown -R frr:frr /etc/frr/router /var/run/frr\n")
	for _, c := range configs {
		fmt.Fprintf(&b, "/usr/lib/frr/%[1]s -d -N router -f /etc/frr/router/%[1]s.conf --log file:/var/log/frr-%[1]s.log\n", c.daemon)
	}
	return b.String()
}

// virtualization starts libvirtd and waits until its qemu driver answers. Its probe of qemu takes seconds in an emulated
// processor, so the first lab of an image leaves the result for the others.
func (u *start) virtualization(ctx context.Context) error {
	warm := u.image.warm(u.spec.Accel)
	cache, err := os.ReadFile(warm)
	if err == nil {
		if err := u.script(ctx, "", "tar -x -C /var/cache/libvirt", bytes.NewReader(cache)); err != nil {
			return fmt.Errorf("bring libvirt's cache: %w", err)
		}
	}
	const text = `mkdir -p /run/libvirt /var/log/libvirt
libvirtd -d -p /run/libvirt/libvirtd.pid
virsh -q -c qemu:///system list --all`
	if err := u.script(ctx, "", text, nil); err != nil {
		return fmt.Errorf("start libvirtd: %w", err)
	}
	u.say("libvirtd answers")
	if cache == nil {
		return u.keepCache(ctx, warm)
	}
	return nil
}

// keepCache stores what libvirt found out about qemu beside the image.
func (u *start) keepCache(ctx context.Context, path string) error {
	var out, complaint bytes.Buffer
	args := []string{"tar", "-c", "-C", "/var/cache/libvirt", "."}
	status, err := execAt(ctx, u.running.Port, u.spec.Token, Command{Args: args, Stdout: &out, Stderr: &complaint})
	if err != nil || status != 0 {
		return fmt.Errorf("keep libvirt's cache: status %d: %w: %s", status, err, complaint.String())
	}
	fresh := path + "." + u.lab.Name
	if err := os.WriteFile(fresh, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("keep libvirt's cache: %w", err)
	}
	return os.Rename(fresh, path)
}

// agents starts bladed.
func (u *start) agents(ctx context.Context) error {
	const text = `command -v bladed >/dev/null || { echo "no bladed in bin/: make build"; exit 1; }
setsid bladed --policy /etc/bladenet >>/var/log/bladed.log 2>&1 </dev/null &
pid=$!
sleep 1
kill -0 $pid || { tail -n 10 /var/log/bladed.log; exit 1; }`
	if err := u.script(ctx, "", text, nil); err != nil {
		return fmt.Errorf("start bladed: %w", err)
	}
	u.say("bladed runs")
	return nil
}
