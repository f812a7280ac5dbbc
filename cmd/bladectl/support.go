package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/bundle"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

func supportVerb() verb {
	v := verb{
		name: "support-bundle", args: "", brief: "Pack what somebody far away needs to understand this blade, without secrets",
		example: "bladectl support-bundle --out /tmp/blade-1.tar.gz",
	}
	v.run = func(ctx context.Context, e env, args []string) error {
		f := newFlags(e, v).withSocket()
		out := f.String("out", "", "`file` to write, which must not exist (default: bladenet-HOST-TIME.tar.gz here)")
		dir := f.String("policy", DefaultPolicy, "`folder` of policy files, for a host without bladed")
		state := f.String("state", "/var/lib/bladenet", "`folder` of revisions and the journal, for a host without bladed")
		logs := f.Int("n", 500, "how many lines of each guest's console; 0: none")
		if _, err := f.parse(args, 0, 0); err != nil {
			return err
		}
		now := time.Now()
		host, _ := os.Hostname() // a host without a name has a bundle too
		name := fmt.Sprintf("bladenet-%s-%s", host, now.UTC().Format("20060102T150405Z"))
		if *out == "" {
			*out = name + ".tar.gz"
		}
		c := collection{client: f.client, now: now, lines: *logs}
		c.host()
		if s, err := f.client.Status(ctx); err == nil {
			c.daemon(ctx, s)
		} else {
			fmt.Fprintf(e.stderr, "bladectl: %v: the bundle has what is on disk\n", err)
			c.text("status", nil, err)
			c.disk(ctx, *dir, *state)
		}
		return c.write(*out, name, e.stdout)
	}
	return v
}

// collection is a bundle that grows.
type collection struct {
	client *api.Client
	now    time.Time
	lines  int
	items  []bundle.Item
	files  []policy.File // every policy that was seen: its secrets are known
}

func (c *collection) text(name string, text []byte, err error) {
	c.items = append(c.items, bundle.Item{Name: name, Text: text, Err: err})
}

// document adds a value as JSON.
func (c *collection) document(name string, v any, err error) {
	var text []byte
	if err == nil {
		text, err = json.MarshalIndent(v, "", "  ")
	}
	c.text(name+".json", text, err)
}

// read adds a file, or what is wrong with it.
func (c *collection) read(name, path string) {
	text, err := os.ReadFile(path)
	c.text(name, text, err)
}

// host adds what the kernel and the system say of themselves.
func (c *collection) host() {
	info, _ := debug.ReadBuildInfo()
	c.text("versions/bladectl", fmt.Appendf(nil, "%v\n", info), nil)
	c.text("versions/packages", installed("/var/lib/dpkg/status"), nil)
	c.read("versions/system", "/etc/os-release")
	for _, name := range []string{"version", "cmdline", "modules", "meminfo", "loadavg", "uptime", "mounts", "net/dev", "sys/net/netfilter/nf_conntrack_count"} {
		c.read("kernel/"+name, "/proc/"+name)
	}
	c.text("links", links("/sys/class/net"), nil)
}

// daemon adds what bladed says.
func (c *collection) daemon(ctx context.Context, s api.Status) {
	c.document("status", s, nil)
	p, err := c.client.Plan(ctx, api.PlanRequest{})
	c.document("plan", p, err)
	d, err := c.client.Doctor(ctx, api.DoctorRequest{})
	c.document("doctor", d, err)
	list, err := c.client.Revisions(ctx)
	c.document("revisions", list, err)
	for _, r := range list.Revisions[max(0, len(list.Revisions)-3):] {
		c.revision(ctx, r.Number, r.Number == list.InForce, s.Blade)
	}
	var events bytes.Buffer
	err = c.client.Events(ctx, api.EventsRequest{}, func(e api.Entry) error { return json.NewEncoder(&events).Encode(e) })
	c.text("events.jsonl", events.Bytes(), err)
	err = c.client.Metrics(ctx, c.keep("metrics"))
	if err != nil {
		c.text("metrics", nil, err)
	}
	for _, g := range s.Guests {
		if c.lines <= 0 {
			break
		}
		name := "guests/" + string(g.Name) + ".log"
		if err := c.client.Log(ctx, api.LogRequest{Name: g.Name, Lines: c.lines}, c.keep(name)); err != nil {
			c.text(name, nil, err)
		}
	}
}

// keep returns what reads an answer into an item.
func (c *collection) keep(name string) func(io.Reader) error {
	return func(r io.Reader) error {
		text, err := io.ReadAll(io.LimitReader(r, 16<<20))
		c.text(name, text, err)
		return nil
	}
}

// revision adds a revision's files and, of the one in force, the rules that the blade should have.
func (c *collection) revision(ctx context.Context, number int, inForce bool, blade policy.BladeName) {
	folder := fmt.Sprintf("revisions/%d/", number)
	r, err := c.client.Revision(ctx, number)
	if err != nil {
		c.text(folder, nil, err)
		return
	}
	var files []policy.File
	for _, f := range r.Files {
		files = append(files, policy.File{Name: f.Name, Data: []byte(f.Data)})
		c.text(folder+filepath.Base(f.Name), []byte(f.Data), nil)
	}
	c.files = append(c.files, files...)
	if inForce {
		c.rules(files, blade)
	}
}

func (c *collection) rules(files []policy.File, name policy.BladeName) {
	fleet, found := policy.Load(files)
	if err := found.Err(); err != nil {
		c.text("rules.nft", nil, err)
		return
	}
	blade, err := policy.Derive(fleet, name)
	if err != nil {
		c.text("rules.nft", nil, err)
		return
	}
	c.text("rules.nft", []byte(filter.Compile(blade).Text()), nil)
}

// disk adds what a host without its daemon has: the policy folder, the newest revision and the journal.
func (c *collection) disk(ctx context.Context, dir, state string) {
	files, err := policy.ReadDir(dir)
	c.files = append(c.files, files...)
	if err != nil {
		c.text("policy/", nil, err)
	}
	for _, f := range files {
		c.text("policy/"+filepath.Base(f.Name), f.Data, nil)
	}
	host, _ := os.Hostname()
	c.rules(files, policy.BladeName(host))
	c.document("doctor", examine(ctx, dir, "", false), nil)
	c.stored(revision.At(filepath.Join(state, "revisions")))
	folder := filepath.Join(state, "journal")
	entries, err := os.ReadDir(folder)
	if err != nil {
		c.text("journal/", nil, err)
	}
	for _, e := range entries {
		c.read("journal/"+e.Name(), filepath.Join(folder, e.Name()))
	}
}

// stored adds the newest revisions on disk.
func (c *collection) stored(store *revision.Store) {
	numbers, err := store.Numbers()
	if err != nil {
		c.text("revisions/", nil, err)
	}
	for _, n := range numbers[max(0, len(numbers)-3):] {
		folder := fmt.Sprintf("revisions/%d/", n)
		r, err := store.Load(n)
		for _, f := range r.Files {
			c.text(folder+filepath.Base(f.Name), f.Data, nil)
		}
		c.files = append(c.files, r.Files...)
		r.Files = nil
		c.document(folder+"revision", r, err)
	}
}

func (c *collection) write(out, name string, said io.Writer) error {
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there: --out FILE", out)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(bundle.Write(f, name, c.now, bundle.NewRedactor(c.files), c.items), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", out, err), os.Remove(out))
	}
	_, err = fmt.Fprintf(said, "%s: %d files; URLs of webhooks, passwords and keys were taken out, addresses and names were not\n", out, len(c.items))
	return err
}

// links lists the network devices of the host with what sysfs says of them.
func links(root string) []byte {
	entries, _ := os.ReadDir(root) // a host without it has no links to show
	var b bytes.Buffer
	for _, e := range entries {
		fmt.Fprintf(&b, "%s", e.Name())
		for _, name := range []string{"operstate", "mtu", "address", "ifalias"} {
			text, _ := os.ReadFile(filepath.Join(root, e.Name(), name))
			fmt.Fprintf(&b, "\t%s=%s", name, strings.TrimSpace(string(text)))
		}
		if master, err := os.Readlink(filepath.Join(root, e.Name(), "master")); err == nil {
			fmt.Fprintf(&b, "\tmaster=%s", filepath.Base(master))
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// installed finds the packages that matter in dpkg's list.
func installed(path string) []byte {
	text, _ := os.ReadFile(path) // another system has another list
	var b bytes.Buffer
	for stanza := range strings.SplitSeq(string(text), "\n\n") {
		fields := map[string]string{}
		for line := range strings.Lines(stanza) {
			if name, value, ok := strings.Cut(line, ": "); ok {
				fields[name] = strings.TrimSpace(value)
			}
		}
		name := fields["Package"]
		if slices.ContainsFunc([]string{"bladenet", "lxc", "liblxc", "libvirt-daemon", "qemu-system-x86", "nftables", "linux-image", "systemd"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			fmt.Fprintf(&b, "%s %s (%s)\n", name, fields["Version"], fields["Status"])
		}
	}
	return b.Bytes()
}
