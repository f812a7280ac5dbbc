package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDerivedMakesSense says of each blade of the reference fleet, in the words of its files, what an operator would expect of it:
// the golden files beside it record every byte, this says why they are right.
func TestDerivedMakesSense(t *testing.T) {
	f := nantes(t)
	for name, want := range map[BladeName]struct {
		vlans    string // of the site's uplink, the service and the return network
		guests   string
		services string
		announce string
	}{
		"lame-l1": {"111 120 130", "cas-l1 dir-pub-l www-l1", "cas webmail www", "ospf"},
		"lame-l2": {"211 220 230", "dir-prv-l dns-l1 ldap-l1 proxy-l1", "dns ldap proxy", "ospf"},
		"lame-t1": {"112 120 130", "cas-t1 dir-pub-t mail-t1 www-t1", "cas webmail www", "ospf"},
		"lame-t2": {"212 220 230", "dir-prv-t dns-t1 ldap-t1", "dns ldap proxy", "ospf"},
		"lame-c1": {"113 120 130", "dir-pub-c mail-c1 www-c1", "cas webmail www", "bgp"},
		"lame-c2": {"213 220 230", "dir-prv-c dns-c1 proxy-c1", "dns ldap proxy", "ospf"},
	} {
		t.Run(string(name), func(t *testing.T) {
			b := mustDerive(t, f, name)
			var vlans []int
			for _, s := range b.Segments {
				vlans = append(vlans, int(s.VLAN))
			}
			slices.Sort(vlans)
			equal(t, "VLANs", want.vlans, strings.Trim(fmt.Sprint(vlans), "[]"))
			equal(t, "guests", want.guests, joined(b.Guests, func(g Guest) string { return string(g.Name) }))
			equal(t, "services", want.services, joined(b.Services, func(s Service) string { return string(s.Name) }))
			for _, g := range b.Guests {
				guestMakesSense(t, f, b, g, want.announce)
			}
			zonesApart(t, f, b)
		})
	}
}

func equal(t *testing.T, what, want, got string) {
	t.Helper()
	if want != got {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func joined[T any](list []T, text func(T) string) string {
	var out []string
	for _, x := range list {
		out = append(out, text(x))
	}
	return strings.Join(out, " ")
}

// guestMakesSense holds a guest against its entry: its VIPs, its way out, and what it runs on.
func guestMakesSense(t *testing.T, f *Fleet, b Blade, g Guest, announce string) {
	t.Helper()
	entry, _ := f.Guest(g.Name)
	eth0 := f.Network(entry.Eth0.Network)
	equal(t, string(g.Name)+": routes", fmt.Sprintf("0.0.0.0/0 %s eth0, ::/0 %s eth0", eth0.Routers[0], eth0.Routers[1]),
		strings.ReplaceAll(joined(g.Inside.Routes, func(r Route) string { return fmt.Sprintf("%s %s %s", r.Destination, r.Via, r.Interface) }), "eth0 ::", "eth0, ::"))
	var behind []ServiceName
	for i := range f.Services {
		s := &f.Services[i]
		serves := s.Sorry == g.Name
		if rs := f.RealServer(g.Name); rs != nil {
			serves = serves || slices.ContainsFunc(rs.Serves, func(x Serve) bool { return x.Service == s.Name })
		}
		if serves || g.Role == RoleDirector && s.Zone == b.Zone {
			behind = append(behind, s.Name)
		}
	}
	var vips []netip.Addr
	for _, s := range behind {
		vips = append(vips, f.Service(s).VIPs...)
	}
	slices.SortFunc(vips, netip.Addr.Compare)
	equal(t, string(g.Name)+": VIPs", joined(vips, netip.Addr.String), joined(g.Inside.VIPs, func(v VIP) string { return v.Address.String() }))
	driver := map[Role]Driver{RoleDirector: DriverKVM, RoleRealServer: DriverLXC}[g.Role]
	if g.Driver != driver || g.Ports[0].VLAN != eth0.VLAN || g.Ports[1].VLAN != f.Network(entry.Eth1.Network).VLAN || (g.Balancer != nil) != (g.Role == RoleDirector) {
		t.Errorf("%s: driver %s, VLANs %d and %d, balancer %t", g.Name, g.Driver, g.Ports[0].VLAN, g.Ports[1].VLAN, g.Balancer != nil)
	}
	if g.Balancer == nil {
		return
	}
	if ospf, bgp := g.Balancer.Announce.OSPF != nil, g.Balancer.Announce.BGP != nil; ospf != (announce == "ospf") || bgp != (announce == "bgp") {
		t.Errorf("%s: announces by OSPF %t, by BGP %t", g.Name, ospf, bgp)
	}
	for _, v := range g.Balancer.Services {
		for _, d := range v.Destinations {
			destinationMakesSense(t, f, b, v, d)
		}
	}
}

// destinationMakesSense: a family each, the weight of the entry as the service's mode has it, and a check for all but sorry servers.
func destinationMakesSense(t *testing.T, f *Fleet, b Blade, v VirtualService, d Destination) {
	t.Helper()
	s, server := f.Service(v.Service), f.RealServer(d.Guest)
	weight, remote := sorryWeight, 0
	for _, x := range server.Serves {
		if x.Service != s.Name {
			continue
		}
		weight = x.Weight
		if s.Mode == ModeLocality && f.Blade(server.Blade).Site != b.Site {
			weight, remote = map[ServiceName]int{"cas": 1}[s.Name], x.Weight // 1% of 100 for cas; the others send nothing away
		}
	}
	sorry := s.Sorry == d.Guest
	if d.Weight != weight || d.Remote != remote || d.Sorry != sorry || (d.Check == "") != sorry || d.Address.Is4() != v.VIP.Is4() ||
		!slices.Contains(server.Eth1.Addresses, d.Address) || d.Port != v.Port {
		t.Errorf("%s at %s: %+v, want weight %d, remote %d, sorry %t", v.Service, v.VIP, d, weight, remote, sorry)
	}
}

// zonesApart: nothing of the other zone is in a blade's state, but the ends of rules that name it and the fleet-wide list of
// guests' addresses.
func zonesApart(t *testing.T, f *Fleet, b Blade) {
	t.Helper()
	var got []string
	for _, p := range b.Peers {
		got = append(got, string(p.Guest))
	}
	var want []string
	for _, g := range f.Guests() {
		if f.Blade(g.Blade).Zone == b.Zone {
			want = append(want, string(g.Name), string(g.Name))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("peers (-want +got):\n%s", diff)
	}
	rules := map[ZoneName]string{"public": "admin resolve-and-clock supervision", "private": "admin proxy-out resolve-and-clock supervision"}[b.Zone]
	equal(t, "rules", rules, joined(b.Rules, func(r Rule) string { return r.Name }))
	equal(t, "hosts", "management", joined(b.Hosts, func(r Rule) string { return r.Name }))
	if len(b.GuestAddresses) != 4*len(f.Guests()) {
		t.Errorf("%d addresses of %d guests", len(b.GuestAddresses), len(f.Guests()))
	}
}
