package lab

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/test/lab/guest"
)

// settle makes the machine a blade, or several, with a router and a user beside.
func (u *start) settle(ctx context.Context) error {
	if u.spec.Systemd {
		if err := u.services(ctx); err != nil {
			return err
		}
	}
	if err := u.spaces(ctx); err != nil {
		return err
	}
	parts := []func(context.Context) error{u.virtualization, u.network}
	err := together(ctx, len(parts), func(ctx context.Context, i int) error { return parts[i](ctx) })
	if err == nil && u.options.Agent {
		err = u.onBlades(ctx, u.agent)
	}
	return err
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

// services waits until systemd has started everything, and takes nothing that failed. It has made every mount shared, and a file that holds a
// mount namespace may not lie in one.
func (u *start) services(ctx context.Context) error {
	const text = `until [ -S /run/systemd/private ]; do sleep 0.2; done
state=$(systemctl is-system-running --wait || true)
if [ "$state" != running ]; then
	echo "the system is $state"
	systemctl --no-legend --failed
	exit 1
fi
mount --make-private ` + guest.Spaces
	if err := u.script(ctx, machine, text, nil); err != nil {
		return fmt.Errorf("start services: %w", err)
	}
	u.say("systemd has started everything")
	return nil
}

// spaces makes the namespaces and brings the policy files.
func (u *start) spaces(ctx context.Context) error {
	if err := u.script(ctx, machine, u.topology.spacesScript(), nil); err != nil {
		return fmt.Errorf("make namespaces: %w", err)
	}
	if u.again {
		return nil
	}
	files, err := policyTar(u.policy)
	if err != nil {
		return fmt.Errorf("pack policy: %w", err)
	}
	return u.onBlades(ctx, func(ctx context.Context, blade string) error {
		if err := u.script(ctx, blade, "tar -x -C /etc/bladenet", bytes.NewReader(files)); err != nil {
			return fmt.Errorf("bring policy: %w", err)
		}
		return nil
	})
}

// policyTar packs policy files, without their folder.
func policyTar(files []policy.File) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, file := range files {
		if err := w.WriteHeader(&tar.Header{Name: filepath.Base(file.Name), Mode: 0o644, Size: int64(len(file.Data))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(file.Data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// network makes the links of the routers, the blades and the clients and starts the routers' daemons.
func (u *start) network(ctx context.Context) error {
	t := u.topology
	type part struct{ space, links string }
	var parts []part
	for _, s := range t.Sites {
		parts = append(parts, part{s.router(), t.routerLinks(s)}, part{s.client(), s.clientLinks()})
	}
	if len(t.Sites) > 1 {
		parts = append(parts, part{machine, t.machineLinks()})
	}
	for i, b := range t.Blades {
		parts = append(parts, part{b.Name, t.bladeLinks(i)})
	}
	for _, p := range parts {
		if err := u.script(ctx, p.space, "ip -batch -", strings.NewReader(p.links)); err != nil {
			return fmt.Errorf("make links of %s: %w", p.space, err)
		}
	}
	u.say("router and client have their links")
	for _, s := range t.Sites {
		if err := u.script(ctx, s.router(), routerScript(s.router(), t.frrConfigs(s)), nil); err != nil {
			return fmt.Errorf("start %s: %w", s.router(), err)
		}
		u.say("%s speaks OSPF, BGP and BFD", s.router())
	}
	return nil
}

// routerScript writes the files of a router's FRR and starts its daemons: zebra, then all that speak to it at once. Each returns when it
// listens.
func routerScript(name string, configs []frrConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mkdir -p /etc/frr/%[1]s /var/run/frr/%[1]s\n: >/etc/frr/%[1]s/vtysh.conf\n", name)
	for _, c := range configs {
		fmt.Fprintf(&b, "cat >/etc/frr/%s/%s.conf <<'END'\n%sEND\n", name, c.daemon, c.text)
	}
	fmt.Fprintf(&b, "chown -R frr:frr /etc/frr/%s /var/run/frr\npids=\n", name)
	for i, c := range configs {
		fmt.Fprintf(&b, "/usr/lib/frr/%[1]s -d -N %[2]s -f /etc/frr/%[2]s/%[1]s.conf --log file:/var/log/frr-%[2]s-%[1]s.log", c.daemon, name)
		if i == 0 {
			b.WriteString("\n")
		} else {
			b.WriteString(" & pids=\"$pids $!\"\n")
		}
	}
	b.WriteString("for pid in $pids; do wait $pid; done\n")
	return b.String()
}

// virtualization starts libvirtd on every blade and waits until its qemu driver answers. Its probe of qemu takes seconds in an
// emulated processor, so the first lab of an image leaves the result for the others.
func (u *start) virtualization(ctx context.Context) error {
	warm := u.image.warm(u.spec.Accel)
	cache, err := os.ReadFile(warm)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = u.onBlades(ctx, func(ctx context.Context, blade string) error {
		if cache != nil && !u.again {
			if err := u.script(ctx, blade, "tar -x -C /var/cache/libvirt", bytes.NewReader(cache)); err != nil {
				return fmt.Errorf("bring libvirt's cache: %w", err)
			}
		}
		text := "mkdir -p /run/libvirt /var/log/libvirt\nlibvirtd -d -p /run/libvirt/libvirtd.pid\n"
		switch {
		case u.again:
			text = ""
		case u.spec.Systemd:
			text = "systemctl restart libvirtd\n" // it reads the cache when it starts
		}
		text += "virsh -q -c qemu:///system list --all"
		if err := u.script(ctx, blade, text, nil); err != nil {
			return fmt.Errorf("start libvirtd: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	u.say("libvirtd answers")
	if cache == nil {
		return u.keepCache(ctx, warm)
	}
	return nil
}

// keepCache lets libvirt ask qemu what it can do, and stores the answer beside the image.
func (u *start) keepCache(ctx context.Context, path string) error {
	const text = `virsh -q -c qemu:///system domcapabilities >/dev/null
ls /var/cache/libvirt/qemu/capabilities/*.xml >/dev/null
tar -c -C /var/cache/libvirt .`
	var out, complaint bytes.Buffer
	c := Command{Args: []string{"/bin/sh", "-euc", text}, Stdout: &out, Stderr: &complaint}
	status, err := execAt(ctx, u.running.Port, u.spec.Token, c)
	if err == nil && status != 0 {
		err = fmt.Errorf("status %d: %s", status, complaint.String())
	}
	if err != nil {
		return fmt.Errorf("keep libvirt's cache: %w", err)
	}
	fresh := path + "." + u.lab.Name
	if err := os.WriteFile(fresh, out.Bytes(), 0o644); err != nil {
		return fmt.Errorf("keep libvirt's cache: %w", err)
	}
	u.say("kept what libvirt found out about qemu")
	return os.Rename(fresh, path)
}

// agent starts bladed on a blade and waits until it listens.
func (u *start) agent(ctx context.Context, blade string) error {
	const text = `command -v bladed >/dev/null || { echo "no bladed in bin/: make build"; exit 1; }
setsid bladed --policy /etc/bladenet --images /lab/images >>/var/log/bladed.log 2>&1 </dev/null &
pid=$!
until [ -S /run/bladenet/bladed.sock ]; do
	kill -0 $pid 2>/dev/null || { tail -n 10 /var/log/bladed.log; exit 1; }
	sleep 0.2
done`
	if err := u.script(ctx, blade, text, nil); err != nil {
		return fmt.Errorf("start bladed: %w", err)
	}
	u.say("bladed runs on %s", blade)
	return nil
}
