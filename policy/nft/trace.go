package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
)

// traceTable marks packets that are to be followed. It belongs to the socket that made it (NFT_TABLE_F_OWNER, Linux 5.12): the kernel
// removes it with that socket, whatever ends this process, and nobody else can change it.
const (
	traceTable    = "bladenet_trace"
	tracePriority = -400 // before our guards, which stand at -300
	traceRate     = 50   // packets a second that a rule marks at most; a burst of as many comes on top
	tableOwner    = 0x2  // NFT_TABLE_F_OWNER
)

// Traced says which packets are followed: those with one of the addresses at either end, those that enter by one of the ports, and those
// to one of the MACs.
type Traced struct {
	Addresses []netip.Addr
	Ports     []string
	MACs      []policy.MAC
	Rules     filter.Ruleset // what the kernel is thought to hold, to name its rules
}

// TraceStep is what became of a followed packet at one rule, or at the end of a chain.
type TraceStep struct {
	Packet  uint32 // the same number for all steps of a packet
	Table   string // by family and name: "bridge bladenet"
	Chain   string
	Rule    string         // in nft's words; empty at the end of a chain, and for a rule that is not as we wrote it
	Comment string         // of the rule: the name of the policy's
	Verdict string         // accept, drop, continue, return, jump CHAIN, goto CHAIN; policy VERDICT at the end of a base chain
	Header  *filter.Packet // what the kernel shows of the packet, once in each hook
}

// Trace marks packets and hands over each step of their way until the context ends, which is no error. One trace runs at a time; another one
// meanwhile is refused with ErrTracing. What it adds to the kernel goes with it.
func (k *Kernel) Trace(ctx context.Context, what Traced, see func(TraceStep)) error {
	t, err := k.openTrace(what)
	if err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	return t.run(ctx, see)
}

// ErrTracing says that packets are being followed already.
var ErrTracing = errors.New("another trace is running")

// trace is one Trace under way.
type trace struct {
	kernel *Kernel
	what   Traced
	events *os.File
	mark   *socket
	rules  map[ruleKey]filter.Rule
	read   time.Time // when rules were read
	links  map[uint32]string
}

// ruleKey is a rule by its handle, which is unique in its table.
type ruleKey struct {
	table  tableName
	handle uint64
}

func (k *Kernel) openTrace(what Traced) (*trace, error) {
	t := &trace{kernel: k, what: what}
	err := within(k.namespace, func() (err error) {
		if t.events, err = listen(unix.NFNLGRP_NFTRACE); err != nil {
			return err
		}
		t.mark, err = dial()
		return errors.Join(err, t.readLinks())
	})
	if err == nil {
		err = t.readRules()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// run marks packets and follows them until the context ends, then takes the marks away.
func (t *trace) run(ctx context.Context, see func(TraceStep)) error {
	defer t.close()
	stop := context.AfterFunc(ctx, func() { _ = t.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := t.begin(ctx); err != nil {
		return fmt.Errorf("trace packets: %w", err)
	}
	return t.follow(ctx, see)
}

// begin lets the kernel mark packets.
func (t *trace) begin(ctx context.Context) error {
	marking, err := encodeMarking(t.what)
	if err != nil {
		return err
	}
	err = t.mark.send(ctx, marking)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EEXIST) {
		return ErrTracing
	}
	return err
}

func (t *trace) close() {
	if t.mark != nil {
		t.mark.close()
	}
	if t.events != nil {
		t.events.Close()
	}
}

// readLinks lists the interfaces of this thread's namespace.
func (t *trace) readLinks() error {
	links, err := net.Interfaces()
	t.links = map[uint32]string{}
	for _, l := range links {
		t.links[uint32(l.Index)] = l.Name
	}
	return err
}

// readRules learns the handles of our rules. One that is not as wanted has no name.
func (t *trace) readRules() error {
	t.kernel.mu.Lock()
	defer t.kernel.mu.Unlock()
	t.rules, t.read = map[ruleKey]filter.Rule{}, time.Now()
	for _, table := range t.what.Rules.Tables {
		if err := t.kernel.handles(table, t.rules); err != nil {
			return err
		}
	}
	return nil
}

// encodeMarking writes the batch that makes the table and its rules.
func encodeMarking(what Traced) (*batch, error) {
	b := newBatch()
	e := newEncoder(b, filter.Table{Family: filter.Bridge, Name: traceTable})
	at := e.message(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, e.family, "add table "+traceTable)
	e.text(unix.NFTA_TABLE_NAME, traceTable)
	e.number(unix.NFTA_TABLE_FLAGS, tableOwner)
	e.close(at)
	chain := filter.Chain{Name: "follow", Hook: filter.Prerouting, Priority: tracePriority}
	e.chain(chain)
	for _, match := range what.matches() {
		if err := e.markRule(chain, match); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// matches is a rule's condition for each kind of packet.
func (w Traced) matches() [][]filter.Statement {
	var out [][]filter.Statement
	for _, a := range w.Addresses {
		kind, source, destination := []byte{0x08, 0x00}, filter.IPv4Source, filter.IPv4Destination
		if a.Is6() {
			kind, source, destination = []byte{0x86, 0xdd}, filter.IPv6Source, filter.IPv6Destination
		}
		for _, field := range []filter.Field{source, destination} {
			out = append(out, []filter.Statement{filter.Match{Field: filter.EtherType, Value: kind}, filter.Match{Field: field, Value: a.AsSlice()}})
		}
	}
	for _, p := range w.Ports {
		name := make([]byte, filter.InPort.Shape().Bytes)
		copy(name[:len(name)-1], p)
		out = append(out, []filter.Statement{filter.Match{Field: filter.InPort, Value: name}})
	}
	for _, m := range w.MACs {
		out = append(out, []filter.Statement{filter.Match{Field: filter.EtherDestination, Value: m[:]}})
	}
	return out
}

// markRule adds a rule that marks what matches, up to the rate.
func (e *encoder) markRule(c filter.Chain, match []filter.Statement) error {
	exprs := lower(filter.Rule{Statements: append(match, filter.Limit{PerSecond: traceRate, Burst: traceRate})})
	exprs = append(exprs, &expr.Immediate{Register: register(0), Data: []byte{1}}, &expr.Meta{Key: expr.MetaKeyNFTRACE, SourceRegister: true, Register: register(0)})
	return e.expressions(c, exprs, "")
}

// follow hands over steps until the context ends. Events that the kernel could not keep are lost, and so are steps of some packets.
func (t *trace) follow(ctx context.Context, see func(TraceStep)) error {
	buf := make([]byte, answerBuffer)
	for {
		n, err := t.events.Read(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			return fmt.Errorf("read events: %w", err)
		}
		eachMessage(buf[:n], func(m message) {
			if e, err := decodeTrace(m); err == nil && e.table != traceTable {
				see(t.step(e))
			}
		})
	}
}

// step names what an event says by numbers.
func (t *trace) step(e traceEvent) TraceStep {
	name := tableName{familyOf(e.family), e.table}
	s := TraceStep{Packet: e.id, Table: name.String(), Chain: e.chain, Verdict: e.verdictText()}
	switch e.kind {
	case unix.NFT_TRACETYPE_POLICY:
		s.Verdict = "policy " + s.Verdict
	case unix.NFT_TRACETYPE_RULE:
		rule := t.rule(ruleKey{name, e.rule})
		s.Rule, s.Comment = rule.String(), rule.Comment
	}
	if e.link != nil {
		p := e.packet()
		p.In, p.Out = t.link(e.in), t.link(e.out)
		s.Header = &p
	}
	return s
}

// reread is how long an unknown rule or interface keeps its number before the kernel is asked again.
const reread = time.Second

func (t *trace) rule(key ruleKey) filter.Rule {
	r, known := t.rules[key]
	if !known && time.Since(t.read) > reread && t.readRules() == nil {
		r = t.rules[key]
	}
	return r
}

func (t *trace) link(index uint32) string {
	if index == 0 {
		return ""
	}
	if name, ok := t.links[index]; ok {
		return name
	}
	return fmt.Sprintf("link %d", index)
}

func familyOf(number byte) filter.Family {
	switch number {
	case unix.NFPROTO_BRIDGE:
		return filter.Bridge
	case unix.NFPROTO_INET:
		return filter.Inet
	}
	return filter.Family(fmt.Sprintf("family %d", number))
}

// handles notes the handles of a table's rules that stand as they were written. Without the table there are none.
func (k *Kernel) handles(table filter.Table, out map[ruleKey]filter.Rule) error {
	held := &nftables.Table{Name: table.Name, Family: nftables.TableFamily(family(table.Family))}
	for _, c := range table.Chains {
		rules, err := k.read.GetRules(held, &nftables.Chain{Name: c.Name, Table: held})
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		for i, r := range rules[:min(len(rules), len(c.Rules))] {
			have, err := ruleBody(byte(held.Family), r.Exprs, r.UserData)
			if err != nil {
				return fmt.Errorf("read rule of chain %s: %w", c.Name, err)
			}
			want, err := wantedRule(table, c.Rules[i])
			if err != nil {
				return err
			}
			if have == want {
				out[ruleKey{tableName{table.Family, table.Name}, r.Handle}] = c.Rules[i]
			}
		}
	}
	return nil
}
