package hostagent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// Bounds of following packets, and how long nothing must be heard of one until its way is over: a frame waits in no queue between hooks.
const (
	traceFor      = 10 * time.Second
	traceLongest  = 10 * time.Minute
	tracePackets  = 20
	traceMost     = 10_000
	traceQuiet    = 200 * time.Millisecond
	traceWaiting  = 1000 // packets whose way is not over
	traceMostHops = 200  // steps of one packet
)

// Trace follows packets of a VIP or a guest and reports each with its way, until enough have come, the time is over or ctx ends; none of
// that is an error.
func (a *Agent) Trace(ctx context.Context, in api.TraceRequest, report func(api.Event)) error {
	blade := a.wantedNow().blade
	what, err := traced(blade, in.Target)
	if err != nil {
		return err
	}
	limit, count := in.For, in.Packets
	if limit == 0 {
		limit = traceFor
	}
	if count == 0 {
		count = tracePackets
	}
	if limit < 0 || limit > traceLongest || count < 0 || count > traceMost {
		return fmt.Errorf("follow %s: %d packets in %v: at most %d in %v", in.Target, count, limit, traceMost, traceLongest)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	a.log.Info("packets are followed", "target", in.Target, "packets", count, "for", limit)
	report(api.Event{Message: fmt.Sprintf("following packets of %s for %v, %d at most", in.Target, limit, count)})
	f := &follower{blade: blade, left: count, open: map[uint32]*following{}, report: report}
	return f.follow(ctx, cancel, func(see func(nft.TraceStep)) error { return a.cfg.Trace(ctx, what, see) })
}

// traced says which packets belong to a VIP of the blade's zone or to a guest of the blade.
func traced(b policy.Blade, target string) (nft.Traced, error) {
	what := nft.Traced{Rules: filter.Compile(b)}
	if vip, err := netip.ParseAddr(target); err == nil {
		if slices.ContainsFunc(b.Services, func(s policy.Service) bool { return slices.Contains(s.VIPs, vip) }) {
			what.Addresses = []netip.Addr{vip}
			return what, nil
		}
	}
	for _, g := range b.Guests {
		if string(g.Name) != target {
			continue
		}
		for _, p := range g.Ports {
			what.Ports, what.MACs = append(what.Ports, p.Name), append(what.MACs, p.MAC)
		}
		return what, nil
	}
	return what, fmt.Errorf("follow %q: neither a VIP of zone %s nor a guest of %s", target, b.Zone, b.Name)
}

// follower puts the steps of packets together. One goroutine uses it.
type follower struct {
	blade  policy.Blade
	left   int // packets still to report
	open   map[uint32]*following
	report func(api.Event)
}

// following is one packet under way.
type following struct {
	steps   []api.TraceStep
	entered map[string]bool // hooks that it has come to, by table and chain
	header  filter.Packet   // of the last hook
	last    nft.TraceStep
	heard   time.Time
}

// follow runs a trace and takes its steps until it ends; it ends it when enough packets were reported.
func (f *follower) follow(ctx context.Context, enough func(), trace func(func(nft.TraceStep)) error) error {
	steps, ended := make(chan nft.TraceStep, traceWaiting), make(chan error, 1)
	go func() {
		ended <- trace(func(s nft.TraceStep) {
			select {
			case steps <- s:
			case <-ctx.Done():
			}
		})
	}()
	tick := time.NewTicker(traceQuiet / 4)
	defer tick.Stop()
	for {
		select {
		case s := <-steps:
			f.take(s, time.Now())
		case now := <-tick.C:
			f.settle(now.Add(-traceQuiet))
		case err := <-ended:
			for len(steps) > 0 {
				f.take(<-steps, time.Now())
			}
			f.settle(time.Now())
			return err
		}
		if f.left == 0 {
			enough()
		}
	}
}

// take adds a step to its packet. A drop ends the way.
func (f *follower) take(s nft.TraceStep, now time.Time) {
	p := f.open[s.Packet]
	entered := s.Table + " " + s.Chain
	if p != nil && s.Header != nil && p.entered[entered] {
		// The kernel makes the number of a buffer's address and the flow: a new packet of the flow may have it again.
		f.finish(s.Packet)
		p = nil
	}
	if p == nil {
		if len(f.open) >= traceWaiting {
			return
		}
		p = &following{entered: map[string]bool{}}
		f.open[s.Packet] = p
	}
	if s.Header != nil {
		p.header = *s.Header
		p.entered[entered] = true
	}
	if len(p.steps) < traceMostHops {
		p.steps = append(p.steps, api.TraceStep{Table: s.Table, Chain: s.Chain, Rule: s.Rule, Verdict: s.Verdict})
	}
	p.last, p.heard = s, now
	if s.Verdict == "drop" || s.Verdict == "policy drop" {
		f.finish(s.Packet)
	}
}

// settle reports the packets of which nothing was heard since a time, in the order in which they were heard of last.
func (f *follower) settle(before time.Time) {
	var quiet []uint32
	for id, p := range f.open {
		if !p.heard.After(before) {
			quiet = append(quiet, id)
		}
	}
	slices.SortFunc(quiet, func(x, y uint32) int { return cmp.Or(f.open[x].heard.Compare(f.open[y].heard), cmp.Compare(x, y)) })
	for _, id := range quiet {
		f.finish(id)
	}
}

func (f *follower) finish(id uint32) {
	p := f.open[id]
	delete(f.open, id)
	if f.left == 0 {
		return
	}
	f.left--
	out := f.judge(p)
	f.report(api.Event{Packet: &out})
}

// judge says what became of a packet and why: the kernel's verdict, and the line of policy that gives the same.
func (f *follower) judge(p *following) api.TracedPacket {
	reason, _ := filter.DenyReason(p.last.Chain)
	dropped := strings.HasSuffix(p.last.Verdict, "drop")
	if reason != filter.VLANTag {
		p.header.Tagged = false // Linux 6.1 still shows the tag that a VLAN link has taken off
	}
	out := api.TracedPacket{In: p.header.In, Out: p.header.Out, Packet: describePacket(p.header), Verdict: "drop", Rule: p.last.Comment, Steps: p.steps}
	switch {
	case dropped:
		out.Reason = reason
	case p.header.Out == "":
		out.Verdict, out.Rule = "stay", "no other port takes it"
		return out
	default:
		out.Verdict = "accept"
	}
	for state := filter.New; state <= filter.Invalid; state++ {
		p.header.State = state
		v := filter.Judge(f.blade, p.header)
		if v.Accept == !dropped && v.Reason == reason {
			out.Rule = v.Rule
			if v.Pos.Line > 0 {
				out.Pos = v.Pos.String()
			}
			return out
		}
	}
	return out
}
