package filter

import (
	"slices"
	"strings"
	"testing"
)

// pins are the sets that tie a sender to its port, or say which port may hear a VIP: a rule that asks one of them may end a
// packet's way before the guards, because what it lets through is exactly what they would.
var pins = []string{kindVIPSpeak, kindVIPLink, kindHop, kindIn, kindServer, kindOut}

// TestNoAcceptAboveAGuard walks the base chains of every rendered bridge table. Above the last rule that can drop, nothing may
// let a packet out of the chain unless it has asked a pin for untagged IP.
func TestNoAcceptAboveAGuard(t *testing.T) {
	f := nantes(t)
	for _, b := range f.Blades {
		table := Compile(blade(t, f, b.Name)).Tables[0]
		if bad := AcceptsAboveGuards(table); len(bad) > 0 {
			t.Errorf("%s:\n%s", b.Name, strings.Join(bad, "\n"))
		}
	}
}

// TestAcceptAboveAGuardIsFound puts the rule in that has opened other filters: established connections first.
func TestAcceptAboveAGuardIsFound(t *testing.T) {
	f := nantes(t)
	for _, chain := range []string{"prerouting", "forward", "guest4", "guest-arp", "link-nd", chainFromGuest, "judge"} {
		for _, end := range []Decide{accept(), done(), follow(chainAdmit), follow(chainAdmitCheck)} {
			table := Compile(blade(t, f, "lame-l1")).Tables[0]
			i := slices.IndexFunc(table.Chains, func(c Chain) bool { return c.Name == chain })
			open := rule(anyState(stateEstablished), end)
			table.Chains[i].Rules = slices.Insert(table.Chains[i].Rules, 0, open)
			if len(AcceptsAboveGuards(table)) == 0 {
				t.Errorf("%s at the head of %s is not found", end.Kind, chain)
			}
		}
	}
}

// AcceptsAboveGuards lists rules that let a packet go in front of a guard of the same chain, or of a chain that leads there.
func AcceptsAboveGuards(table Table) []string {
	chains := map[string]Chain{}
	for _, c := range table.Chains {
		chains[c.Name] = c
	}
	var bad []string
	for _, name := range guarded(chains) {
		c := chains[name]
		last := lastGuard(c)
		for _, r := range c.Rules[:last] {
			if leaves(r) && !pinned(r) && !narrow[name+": "+r.String()] {
				bad = append(bad, name+": "+r.String())
			}
		}
	}
	return bad
}

// narrow are rules that leave a guard chain early by design. Each is listed whole: a change to it must be looked at here.
var narrow = map[string]bool{
	"guest-arp: ether type 0x0806 arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @own4 return":      true,
	"guest-arp: ether type 0x0806 iifname . arp daddr ip @net4 return":                                             true,
	"link-arp: ether type 0x0806 iifname . arp daddr ip @net4 return":                                              true,
	"guest4: ether type 0x0800 iifname . ether saddr . ip saddr @own4 return":                                      true,
	"guest6: ether type 0x86dd ip6 saddr :: meta l4proto 58 @th,0,8 0x87 return":                                   true,
	"guest6: ether type 0x86dd iifname . ether saddr . ip6 saddr @own6 return":                                     true,
	"guest-nd: ether type 0x86dd meta l4proto 58 ip6 saddr :: @th,0,8 0x87 ip6 length 24 return":                   true,
	"guest-nd: ether type 0x86dd meta l4proto 58 ip6 saddr :: @th,0,8 0x87 ip6 length 32 @th,192,16 0x0e01 return": true,
	"guest-nd: ether type 0x86dd meta l4proto 58 ip6 length 24 return":                                             true,
	"guest-nd: ether type 0x86dd meta l4proto 58 ip6 length 32 iifname . @th,192,64 @nd-option return":             true,
	"link-nd: ether type 0x86dd meta l4proto 58 @th,0,8 0x86 ip6 saddr & ffc0:: == fe80:: return":                  true,
	"link-nd: ether type 0x86dd meta l4proto 58 iifname . @th,64,128 @nd-net return":                               true,
	"judge: ether type 0x0806 accept":                                                                               true,
	"judge: ether type 0x86dd meta l4proto 58 @th,0,8 0x87 accept":                                                  true,
	"judge: ether type 0x86dd meta l4proto 58 @th,0,8 0x88 accept":                                                  true,
	"judge: ether type 0x86dd meta l4proto 58 @th,0,8 0x86 accept":                                                  true,
	"judge: ct state established,related accept":                                                                    true,
	"judge: ether type 0x0800 @nh,0,8 0x45 ip saddr . ip daddr . ip protocol . th dport @derived4 goto admit-check": true,
	"judge: ether type 0x86dd ip6 saddr . ip6 daddr . ip6 nexthdr . th dport @derived6 goto admit-check":            true,
	// Those of floating VIPs: each pins port, MAC and VIP, or the VLAN's link and the VIP that it asks for.
	"guest-arp: ether type 0x0806 iifname . ether saddr . arp saddr ether . arp saddr ip @float-arp iifname . arp daddr ip @net4 return":                                            true,
	"link-arp: ether type 0x0806 iifname . ether saddr . arp saddr ether . arp saddr ip @float-arp iifname . arp daddr ip @net4 return":                                             true,
	"link-arp: ether type 0x0806 arp operation 1 iifname . arp daddr ip @float-ask iifname . arp saddr ip @net4 iifname . arp saddr ip != @local4 arp saddr ip != @vips4 return":    true,
	"guest-nd: ether type 0x86dd meta l4proto 58 @th,0,8 0x88 ip6 length 32 iifname . ether saddr . @th,64,128 . @th,192,64 @float-nd return":                                       true,
	"link-nd: ether type 0x86dd meta l4proto 58 @th,0,8 0x88 ip6 length 32 iifname . ether saddr . @th,64,128 . @th,192,64 @float-nd return":                                        true,
	"link-nd: ether type 0x86dd meta l4proto 58 @th,0,8 0x87 ip6 saddr != :: ip6 saddr != @vips6 iifname . @th,64,128 @float-ask-nd return":                                         true,
	"guest6: ether type 0x86dd meta l4proto 58 @th,0,8 0x88 iifname . ether saddr . ip6 saddr @float-from iifname . ether saddr . @th,64,128 . @th,192,64 @float-nd notrack return": true,
	"judge: ether type 0x86dd meta l4proto 58 @th,0,8 0x88 iifname . ether saddr . ip6 saddr @float-from iifname . ether saddr . @th,64,128 . @th,192,64 @float-nd accept":          true,
	"guest6: ether type 0x86dd ip6 nexthdr 112 iifname @vrrp iifname . ether saddr . ip6 saddr @own6 return":                                                                        true,
}

// guarded lists the chains that hold guards or lead to them: those at prerouting, and the slow way of forward.
func guarded(chains map[string]Chain) []string {
	out := []string{"prerouting", "forward", "judge", chainFromGuest, chainFromLink}
	for _, side := range []string{"guest", "link"} {
		for _, kind := range []string{"4", "6", "-arp", "-nd", "-icmp6"} {
			out = append(out, side+kind)
		}
	}
	for _, name := range out {
		if _, ok := chains[name]; !ok {
			panic("filter: no chain " + name)
		}
	}
	return out
}

func lastGuard(c Chain) int {
	last := 0
	for i, r := range c.Rules {
		switch end := r.Statements[len(r.Statements)-1].(type) {
		case Decide:
			if (end.Kind == Goto || end.Kind == Jump) && !leaves(r) {
				last = i
			}
		case Dispatch:
			last = i
		}
	}
	return last
}

// leaves says whether a rule lets a packet go.
func leaves(r Rule) bool {
	end, ok := r.Statements[len(r.Statements)-1].(Decide)
	return ok && (end.Kind == Accept || end.Kind == Return || end.Chain == chainAdmit || end.Chain == chainAdmitCheck)
}

func pinned(r Rule) bool {
	version, ok := r.Statements[0].(Match)
	if !ok || version.Field != EtherType {
		return false
	}
	for _, s := range r.Statements {
		if l, ok := s.(Lookup); ok && !l.Not && slices.ContainsFunc(pins, func(kind string) bool { return l.Set == kind+"4" || l.Set == kind+"6" }) {
			return true
		}
	}
	return false
}
