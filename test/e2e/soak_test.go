//go:build kernel

package e2e

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
)

// figures is what a process must not have more and more of.
type figures struct {
	memory              int64 // resident, in bytes
	files, netlink      int
	goroutines, threads int
}

func (f figures) String() string {
	return fmt.Sprintf("%.1f MiB resident, %d files, %d netlink sockets, %d goroutines, %d threads", float64(f.memory)/(1<<20), f.files, f.netlink, f.goroutines, f.threads)
}

// TestSoak changes the policy once a second for BLADENET_SOAK (1 min if unset). What the agent holds, and what it has put into the kernel, is the same in the
// end as in the beginning.
func TestSoak(t *testing.T) {
	length, err := time.ParseDuration(cmp.Or(os.Getenv("BLADENET_SOAK"), "1m"))
	if err != nil {
		t.Fatal(err)
	}
	b := begin(t)
	ctl(t, "spawn", "realserver", "www-1", "--service", "www", "--image", "web")
	defer func() { // before the test's context ends
		_ = os.Remove(soakFile)
		ctl(t, "apply")
		ctl(t, "destroy", "www-1")
	}()
	converged(t)
	client := api.NewClient(api.DefaultSocket)
	soakRound(t, client) // every kind of change has been done once
	pid := b.cmd.Process.Pid
	rules, first, spent := elements(t), look(t, pid), processorTime(t, pid)
	var all []figures
	changes, began := 0, time.Now()
	for time.Since(began) < length || changes == 0 {
		changes += soakRound(t, client)
		all = append(all, look(t, pid))
	}
	if diff := gocmp.Diff(rules, elements(t)); diff != "" {
		t.Errorf("the rules after %d changes that were taken back (-before +now):\n%s", changes, diff)
	}
	last := all[len(all)-1]
	t.Logf("%d changes in %v: %v of processor a change", changes, time.Since(began).Round(time.Second), ((processorTime(t, pid) - spent) / time.Duration(changes)).Round(time.Millisecond))
	t.Logf("before: %v", first)
	for i := range 4 {
		t.Logf("%3d %%: %v", 25*(i+1), all[(len(all)*(i+1)-1)/4])
	}
	// What comes and goes with a change may be caught on its way; what stays shows in the least of the second half.
	second := all[len(all)/2:]
	least := func(of func(figures) int64) int64 {
		return of(slices.MinFunc(second, func(x, y figures) int { return cmp.Compare(of(x), of(y)) }))
	}
	for what, of := range map[string]func(figures) int64{
		"files": func(f figures) int64 { return int64(f.files) }, "netlink sockets": func(f figures) int64 { return int64(f.netlink) },
		"goroutines": func(f figures) int64 { return int64(f.goroutines) },
	} {
		if n := least(of); n > of(first) {
			t.Errorf("%s: never less than %d in the second half, %d before", what, n, of(first))
		}
	}
	// The collector lets memory swing; what is lost in each change would add up.
	const most = 96 << 20
	if n := least(func(f figures) int64 { return f.memory }); n > first.memory+first.memory/2 || last.memory > most {
		t.Errorf("memory: never less than %d KiB in the second half, %d KiB before", n>>10, first.memory>>10)
	}
}

// soakFile is what the rounds change, beside the fleet's own files.
const soakFile = folder + "/90-soak.yaml"

// soakRound goes through changes of several kinds, a second each, the last of which takes all back. It returns how many there were.
func soakRound(t *testing.T, client *api.Client) int {
	t.Helper()
	texts := []string{
		"services:\n  soak: {zone: public, vips: [203.0.113.99], ports: [80/tcp]}\n",
		"services:\n  soak: {zone: public, vips: [203.0.113.99], ports: [80/tcp, 443/tcp, 53/udp]}\n",
		"services:\n  soak: {zone: public, vips: [203.0.113.98, \"2001:db8:5::98\"], ports: [1000-1099/tcp]}\n",
		"rules:\n  soak: {from: [203.0.113.128/26], to: [realservers], allow: [443/tcp]}\n",
		"hosts:\n  soak: {from: [203.0.113.128/26], allow: [9100/tcp]}\n",
		"",
	}
	for _, text := range texts {
		due := time.Now().Add(time.Second)
		err := os.WriteFile(soakFile, []byte(text), 0o644)
		if text == "" {
			err = os.Remove(soakFile)
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		err = client.Apply(ctx, api.ApplyRequest{}, func(e api.Event) {
			for _, d := range e.Diagnostics {
				t.Log(d)
			}
		})
		cancel()
		if err != nil {
			t.Fatalf("apply %q: %v", text, err)
		}
		time.Sleep(time.Until(due))
	}
	return len(texts)
}

// elements are the words of the filter's listing, in an order of their own: a set lists what was put back somewhere else.
func elements(t *testing.T) []string {
	t.Helper()
	return slices.Sorted(strings.FieldsFuncSeq(ruleset(t), func(r rune) bool { return r == ',' || unicode.IsSpace(r) }))
}

func look(t *testing.T, pid int) figures {
	t.Helper()
	var f figures
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			f.memory = n << 10
		case "Threads":
			f.threads = int(n)
		}
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	f.files = len(open)
	netlinks := netlinkInodes(t, pid)
	for _, file := range open {
		to, _ := os.Readlink(file)
		if netlinks[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] {
			f.netlink++
		}
	}
	f.goroutines = goroutines(t)
	return f
}

// netlinkInodes are those of all netlink sockets in the namespaces of a process's files: the table of each is that namespace's own.
func netlinkInodes(t *testing.T, pid int) map[string]bool {
	t.Helper()
	inodes := map[string]bool{}
	tables, err := filepath.Glob("/run/bladenet/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	read := func(text string) {
		for line := range strings.Lines(text) {
			if f := strings.Fields(line); len(f) == 10 && f[0] != "sk" {
				inodes[f[9]] = true
			}
		}
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", pid))
	if err != nil {
		t.Fatal(err)
	}
	read(string(own))
	for _, ns := range tables {
		read(run(t, "nsenter", "--net="+ns, "cat", "/proc/self/net/netlink"))
	}
	return inodes
}

// goroutines is what the daemon says of itself.
func goroutines(t *testing.T) int {
	t.Helper()
	text := run(t, "curl", "-s", "--unix-socket", api.DefaultSocket, "http://bladed/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "bladenet_goroutines "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("no goroutines in the figures:\n%.300s", text)
	return 0
}
