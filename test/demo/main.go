// Command demo shows the main job on one blade in the lab: guests are spawned, a user's requests are answered over a v4 and a
// v6 VIP, and what is no service is dropped. It ends with status 1 if anything is not so.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	labName  = "demo"
	fleet    = "test/fleets/one-blade"
	vip4     = "203.0.113.10"
	vip6     = "2001:db8:5::10"
	uplink4  = "192.0.2." // how addresses of the directors' network begin
	uplink6  = "2001:db8:111::"
	requests = 200
)

// servers are the real servers that the demo spawns, after the director.
var servers = []string{"www-1", "www-2"}

const director = "dir-pub-l"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begin := time.Now()
	err := demo(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("\nall of it is so; %.0f seconds\n", time.Since(begin).Seconds())
}

// demo runs all parts. The lab ends with it, whatever happens.
func demo(ctx context.Context) (err error) {
	l := lab{name: labName}
	defer func() {
		// The lab must go even when the demo was interrupted.
		if down := l.run(context.WithoutCancel(ctx), "down"); down != nil {
			err = errors.Join(err, down)
		}
	}()
	heading("a blade, a router and a client: %s", fleet)
	if err := l.run(ctx, "up", "--fleet", fleet, "--agent"); err != nil {
		return err
	}
	if err := l.waitAgent(ctx); err != nil {
		return err
	}
	stop, err := l.startCapture(ctx)
	if err != nil {
		return err
	}
	defer stop()
	first, err := spawnAll(ctx, l)
	if err != nil {
		return err
	}
	var failed []error
	for _, part := range []func(context.Context, lab) error{answered, untracked, closed, tagged, picture} {
		failed = append(failed, part(ctx, l))
	}
	heading("seconds from `spawn` to the first answer")
	for _, f := range first {
		fmt.Printf("%-10s %5.1f s  %s\n", f.guest, f.took.Seconds(), f.what)
	}
	return errors.Join(failed...)
}

func heading(format string, args ...any) {
	fmt.Printf("\n── %s\n", fmt.Sprintf(format, args...))
}

// birth is how long a guest took from `spawn` to its first answer.
type birth struct {
	guest string
	took  time.Duration
	what  string
}

// spawnAll spawns the director and the real servers while a user asks the VIP without end; the user's own log says when each
// real server answered first.
func spawnAll(ctx context.Context, l lab) ([]birth, error) {
	watch, err := l.watchUser(ctx)
	if err != nil {
		return nil, err
	}
	defer watch.stop()
	heading("bladectl spawn director %s", director)
	begin := time.Now()
	if err := l.run(ctx, "exec", "--", "bladectl", "spawn", "director", director, "--site", "lombarderie"); err != nil {
		return nil, err
	}
	births := []birth{{director, time.Since(begin), "its helper answers and its routers know it"}}
	for _, s := range servers {
		heading("bladectl spawn realserver %s --service www --image web", s)
		begin := time.Now()
		if err := l.run(ctx, "exec", "--", "bladectl", "spawn", "realserver", s, "--service", "www", "--image", "web"); err != nil {
			return nil, err
		}
		seen, err := watch.firstAnswer(ctx, s)
		if err != nil {
			return nil, err
		}
		births = append(births, birth{s, seen.Sub(begin), "a user got its answer through the VIP"})
	}
	return births, nil
}

// answered sends the requests and counts who answered: all must be, by every real server.
func answered(ctx context.Context, l lab) error {
	heading("%d requests to each VIP, each on a connection of its own", requests)
	var errs []error
	for _, vip := range []string{vip4, vip6} {
		count, err := l.ask(ctx, vip, requests)
		if err != nil {
			errs = append(errs, err)
		}
		total := 0
		for _, s := range servers {
			fmt.Printf("%-16s %-8s answered %3d\n", vip, s, count[s])
			total += count[s]
			if count[s] == 0 {
				errs = append(errs, fmt.Errorf("%s never answered for %s", s, vip))
			}
		}
		if total != requests {
			errs = append(errs, fmt.Errorf("%s: %d of %d requests were answered", vip, total, requests))
		}
	}
	return errors.Join(errs...)
}

// untracked counts the conntrack entries of the VIPs with a tool that is not ours.
func untracked(ctx context.Context, l lab) error {
	heading("conntrack entries of the VIPs on the blade")
	for _, family := range []string{"ipv4", "ipv6"} {
		out, err := l.output(ctx, "", "conntrack", "-L", "-f", family)
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(out) {
			if strings.Contains(line, "="+vip4+" ") || strings.Contains(line, "="+vip6+" ") {
				n++
			}
		}
		fmt.Printf("%s: %d\n", family, n)
		if n != 0 {
			return fmt.Errorf("%d conntrack entries name a VIP in %s:\n%s", n, family, out)
		}
	}
	return nil
}

// closed probes a port that is no service: silence, not a refusal, is what a drop looks like.
func closed(ctx context.Context, l lab) error {
	heading("a port that is no service: 81")
	const timedOut = 28 // curl's exit status for it
	var errs []error
	for _, vip := range []string{vip4, vip6} {
		status, err := l.status(ctx, "client", "curl", "-s", "-m", "2", "-o", "/dev/null", "http://"+bracket(vip)+":81/")
		switch {
		case err != nil:
			errs = append(errs, err)
		case status != timedOut:
			errs = append(errs, fmt.Errorf("port 81 of %s is not dropped: curl ended with %d", vip, status))
		default:
			fmt.Printf("%s: dropped\n", vip)
		}
	}
	return errors.Join(errs...)
}

// tagged reads what was captured on the router's side of the trunk: every frame has the tag of one of the three VLANs, and answers leave
// by another VLAN than requests come by.
func tagged(ctx context.Context, l lab) error {
	heading("on the router's side of the trunk, while all of this went on")
	frames, err := l.captured(ctx)
	if err != nil {
		return err
	}
	want := []string{"VLAN 111, requests to a VIP", "VLAN 120, others", "VLAN 130, answers from a VIP"}
	may := []string{"VLAN 130, answers from a VIP to a probe", "VLAN 111, answers from a VIP to a probe"} // by the router, as a user's
	for _, what := range slices.Sorted(maps.Keys(frames)) {
		fmt.Printf("%-40s %6d frames\n", what, frames[what])
		if strings.Contains(what, "VIP") && !slices.Contains(want, what) && !slices.Contains(may, what) {
			return fmt.Errorf("frames of a VIP where none belong: %s", what)
		}
	}
	for _, what := range want {
		if frames[what] == 0 {
			return fmt.Errorf("no frame of %s was captured", what)
		}
	}
	return nil
}

func picture(ctx context.Context, l lab) error {
	heading("the blade as it is")
	return l.run(ctx, "exec", "--", "bladectl", "status")
}

func bracket(addr string) string {
	if strings.Contains(addr, ":") {
		return "[" + addr + "]"
	}
	return addr
}
