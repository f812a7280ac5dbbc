package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// SpawnRequest asks for one more guest. What is empty is chosen by Allocate.
type SpawnRequest struct {
	Role     Role          `json:"role"`
	Name     GuestName     `json:"name"`
	Blade    BladeName     `json:"blade,omitempty"`
	Site     SiteName      `json:"site,omitempty"`
	Zone     ZoneName      `json:"zone,omitempty"`     // for a director; a real server's follows from its services
	Services []ServiceName `json:"services,omitempty"` // real servers only
	Weight   int           `json:"weight,omitempty"`   // 0: the default
	Driver   Driver        `json:"driver,omitempty"`   // empty: the role's own
	Image    string        `json:"image,omitempty"`

	Privileged bool `json:"privileged,omitempty"` // real servers only: without a user namespace
	Spare      bool `json:"spare,omitempty"`      // real servers only: off while the others of its services suffice
}

// Allocate chooses a place and addresses for a new guest and writes its entry as a policy file of its own, guest-NAME.yaml. It
// is pure: the same fleet and request give the same file. The caller loads the policy again with the file added: that check
// has the last word.
//
// The blade is the one with the fewest guests in the zone (and at the site, if one is asked for); the networks are those that
// most guests of the role use there; addresses are the lowest free ones, the same host number in both families where it is
// free. A director announces as the others of its zone do, those of its own site first, and shares its connections with the latter if they do.
func Allocate(f *Fleet, r SpawnRequest) (File, error) {
	a := &allocator{f: f, SpawnRequest: r}
	text, err := a.entry()
	if err != nil {
		return File{}, fmt.Errorf("spawn %s %s: %w", r.Role, r.Name, err)
	}
	return File{Name: GuestFile(r.Name), Data: []byte(text)}, nil
}

// GuestFile names the policy file of a spawned guest.
func GuestFile(name GuestName) string { return "guest-" + string(name) + ".yaml" }

type allocator struct {
	f *Fleet
	SpawnRequest
	zone  ZoneName
	blade *BladeEntry
}

// entry writes the new guest's file.
func (a *allocator) entry() (string, error) {
	if err := a.named(); err != nil {
		return "", err
	}
	if err := a.zoned(); err != nil {
		return "", err
	}
	if err := a.placed(); err != nil {
		return "", err
	}
	first, second := NetworkReturn, NetworkService
	if a.Role == RoleDirector {
		first = NetworkUplink
	}
	eth0, err := a.attachment("eth0", first)
	if err != nil {
		return "", err
	}
	eth1, err := a.attachment("eth1", second)
	if err != nil {
		return "", err
	}
	dropLoneFamilies(eth0, eth1)
	if len(eth0.Addresses) == 0 {
		return "", fmt.Errorf("networks %s and %s have no family in common", eth0.Network, eth1.Network)
	}
	return a.text(eth0, eth1)
}

// named refuses names and weights that no policy takes.
func (a *allocator) named() error {
	if p := parseLabel(string(a.Name)); p != nil {
		return fmt.Errorf("%s (%s)", p.message, p.hint)
	}
	if g, ok := a.f.Guest(a.Name); ok {
		return fmt.Errorf("there is a guest of that name at %s", g.Pos)
	}
	if a.Role != RoleDirector && a.Role != RoleRealServer {
		return fmt.Errorf("no such role; one of %s, %s", RoleDirector, RoleRealServer)
	}
	switch {
	case a.Driver != "" && a.Driver != DriverKVM && a.Driver != DriverLXC:
		return fmt.Errorf("there is no driver %s; one of %s, %s", a.Driver, DriverKVM, DriverLXC)
	case a.Driver == DriverLXC && a.Role == RoleDirector:
		return errors.New("a director is a virtual machine: its connection table and its modules are its kernel's")
	}
	if a.Weight < 0 || a.Weight > 65535 {
		return fmt.Errorf("weight %d is out of range, from 0 to 65535", a.Weight)
	}
	if a.Image != "" {
		if _, p := parseImage(a.Image); p != nil {
			return fmt.Errorf("%s (%s)", p.message, p.hint)
		}
	}
	if b := a.f.Blade(a.Blade); b == nil && a.Blade != "" {
		return fmt.Errorf("there is no blade %s", a.Blade)
	}
	if a.Site != "" && a.f.index.sites[a.Site] == nil {
		return fmt.Errorf("there is no site %s", a.Site)
	}
	return nil
}

// zoned finds the zone: that of the services, of the blade, the one asked for, or the only one there is.
func (a *allocator) zoned() error {
	a.zone = a.Zone
	take := func(z ZoneName, why string) error {
		if a.zone != "" && a.zone != z {
			return fmt.Errorf("%s belongs to zone %s, not %s", why, z, a.zone)
		}
		a.zone = z
		return nil
	}
	if a.Privileged && (a.Role == RoleDirector || a.Driver == DriverKVM) {
		return fmt.Errorf("a virtual machine has no privilege on the blade: only a container can be given it")
	}
	if a.Role == RoleDirector && len(a.Services) > 0 {
		return fmt.Errorf("a director balances every service of its zone; name none")
	}
	if a.Role == RoleDirector && a.Spare {
		return errors.New("only a real server can be a spare one")
	}
	if a.Role == RoleRealServer && len(a.Services) == 0 {
		return fmt.Errorf("no service to serve")
	}
	for _, name := range a.Services {
		s := a.f.Service(name)
		if s == nil {
			return fmt.Errorf("there is no service %s", name)
		}
		if err := take(s.Zone, "service "+string(name)); err != nil {
			return err
		}
	}
	if b := a.f.Blade(a.Blade); b != nil {
		return take(b.Zone, "blade "+string(b.Name))
	}
	if a.zone != "" {
		return nil
	}
	var zones []string
	for i := range a.f.Blades {
		if b := &a.f.Blades[i]; (a.Site == "" || b.Site == a.Site) && !slices.Contains(zones, string(b.Zone)) {
			zones = append(zones, string(b.Zone))
		}
	}
	slices.Sort(zones)
	if len(zones) != 1 {
		return fmt.Errorf("name the zone or the blade: the blades belong to %s", list(zones))
	}
	a.zone = ZoneName(zones[0])
	return nil
}

// placed chooses the blade with the fewest guests.
func (a *allocator) placed() error {
	guests := map[BladeName]int{}
	for _, g := range a.f.Guests() {
		guests[g.Blade]++
	}
	for i := range a.f.Blades {
		b := &a.f.Blades[i]
		if b.Zone != a.zone || a.Site != "" && b.Site != a.Site || a.Blade != "" && b.Name != a.Blade {
			continue
		}
		if a.blade == nil || guests[b.Name] < guests[a.blade.Name] {
			a.blade = b
		}
	}
	switch {
	case a.blade != nil:
		return nil
	case a.Blade != "":
		return fmt.Errorf("blade %s does not stand at site %s", a.Blade, a.Site)
	case a.Site != "":
		return fmt.Errorf("zone %s has no blade at site %s", a.zone, a.Site)
	}
	return fmt.Errorf("zone %s has no blade", a.zone)
}

// attachment chooses a network of a role at the blade and the lowest free addresses in it.
func (a *allocator) attachment(iface string, role NetworkRole) (*Attachment, error) {
	used := map[NetworkName]int{}
	for _, g := range a.f.Guests() {
		if g.Role == a.Role {
			used[g.Eth0.Network]++
			used[g.Eth1.Network]++
		}
	}
	var n *Network
	for i := range a.f.Networks {
		x := &a.f.Networks[i]
		if x.Zone == a.zone && x.Role == role && x.at(a.blade.Site) && (n == nil || used[x.Name] > used[n.Name]) {
			n = x
		}
	}
	if n == nil {
		return nil, fmt.Errorf("zone %s has no %s network at site %s for %s", a.zone, role, a.blade.Site, iface)
	}
	addresses, err := a.addresses(n)
	return &Attachment{Network: n.Name, Addresses: addresses}, err
}

// addresses picks one free address in the first subnet of each family.
func (a *allocator) addresses(n *Network) ([]netip.Addr, error) {
	taken := a.taken()
	var out []netip.Addr
	host := uint64(0)
	for _, v4 := range []bool{true, false} {
		i := slices.IndexFunc(n.Subnets, func(s netip.Prefix) bool { return s.Addr().Is4() == v4 })
		if i < 0 {
			continue
		}
		x, ok := freeAddress(n.Subnets[i], host, taken)
		if !ok {
			return nil, fmt.Errorf("network %s: no free address in %s", n.Name, n.Subnets[i])
		}
		host = hostNumber(n.Subnets[i], x)
		out = append(out, x)
	}
	return out, nil
}

// taken is every address that the policy gives to somebody.
func (a *allocator) taken() map[netip.Addr]bool {
	taken := map[netip.Addr]bool{}
	for _, g := range a.f.Guests() {
		for _, x := range g.addresses() {
			taken[x] = true
		}
	}
	for i := range a.f.Networks {
		for _, x := range a.f.Networks[i].Routers {
			taken[x] = true
		}
	}
	for i := range a.f.Services {
		for _, x := range a.f.Services[i].VIPs {
			taken[x] = true
		}
	}
	return taken
}

// freeAddress returns the address with the wished host number if it is free, else the lowest free one of a subnet. Neither
// the network's own address nor IPv4's broadcast is free.
func freeAddress(p netip.Prefix, wish uint64, taken map[netip.Addr]bool) (netip.Addr, bool) {
	if wish > 0 {
		if x := addHost(p, wish); p.Contains(x) && !taken[x] {
			return x, true
		}
	}
	x, last := p.Addr(), lastAddr(p)
	if p.Bits() < p.Addr().BitLen()-1 {
		x = x.Next()
	}
	for ; p.Contains(x); x = x.Next() {
		if x == last && x.Is4() && p.Bits() < 31 {
			break
		}
		if !taken[x] {
			return x, true
		}
	}
	return netip.Addr{}, false
}

// hostNumber is the part of an address behind its subnet's prefix, its lowest 64 bits.
func hostNumber(p netip.Prefix, a netip.Addr) uint64 {
	b, n := a.AsSlice(), p.Addr().AsSlice()
	var v uint64
	for i := range b {
		v = v<<8 | uint64(b[i]^n[i])
	}
	return v
}

// addHost is the address of a subnet with a host number; outside of the subnet when the number does not fit.
func addHost(p netip.Prefix, host uint64) netip.Addr {
	b := p.Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && host > 0; i-- {
		b[i] |= byte(host)
		host >>= 8
	}
	if host > 0 {
		return netip.Addr{}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// dropLoneFamilies leaves the families that both interfaces have.
func dropLoneFamilies(x, y *Attachment) {
	for _, v4 := range []bool{true, false} {
		_, on0 := firstOf(x.Addresses, v4)
		_, on1 := firstOf(y.Addresses, v4)
		if on0 && on1 {
			continue
		}
		lone := func(a netip.Addr) bool { return a.Is4() == v4 }
		x.Addresses = slices.DeleteFunc(x.Addresses, lone)
		y.Addresses = slices.DeleteFunc(y.Addresses, lone)
	}
}

// text writes the file.
func (a *allocator) text(eth0, eth1 *Attachment) (string, error) {
	section, kind, middle, last := "realservers", "Real server", "", ""
	image := a.Image
	if a.Role == RoleDirector {
		section, kind = "directors", "Director"
		middle, last = a.sync(), ", announce: "+a.announce()
	} else {
		if image == "" {
			image = a.sameImage()
		}
		if image == "" {
			return "", fmt.Errorf("name an image: no one image is common to the real servers of %s", a.Services[0])
		}
		middle = ", serves: {" + a.serves() + "}"
		if a.Driver == DriverKVM {
			middle = ", driver: " + string(DriverKVM) + middle
		}
		if a.Privileged {
			middle += ", privileged: true"
		}
		if a.Spare {
			middle += ", spare: true"
		}
	}
	if image != "" {
		middle = ", image: " + plainText(image) + middle
	}
	return fmt.Sprintf("# %s %s, spawned on blade %s. An entry like any other: edit it, or move it to another file.\n"+
		"%s:\n  %s: {blade: %s%s, eth0: %s, eth1: %s%s}\n",
		kind, a.Name, a.blade.Name, section, plainText(string(a.Name)), plainText(string(a.blade.Name)), middle, attachmentText(eth0), attachmentText(eth1), last), nil
}

func attachmentText(a *Attachment) string {
	var list []string
	for _, x := range a.Addresses {
		if x.Is4() {
			list = append(list, x.String())
		} else {
			list = append(list, strconv.Quote(x.String()))
		}
	}
	return fmt.Sprintf("{network: %s, addresses: [%s]}", plainText(string(a.Network)), strings.Join(list, ", "))
}

// plainText quotes the few texts that a reader of YAML would take for something else.
func plainText(s string) string {
	switch s {
	case "null", "true", "false", "~", "":
		return strconv.Quote(s)
	}
	if strings.HasSuffix(s, ":") {
		return strconv.Quote(s)
	}
	return s
}

func (a *allocator) serves() string {
	var list []string
	for _, s := range slices.Compact(slices.Sorted(slices.Values(a.Services))) {
		body := "{}"
		if a.Weight > 0 {
			body = "{weight: " + strconv.Itoa(a.Weight) + "}"
		}
		list = append(list, plainText(string(s))+": "+body)
	}
	return strings.Join(list, ", ")
}

// sameImage is the image of the first service's real servers, if they agree on one.
func (a *allocator) sameImage() string {
	image := ""
	for _, g := range a.f.index.servers[a.Services[0]] {
		if image != "" && image != g.Image {
			return ""
		}
		image = g.Image
	}
	return image
}

// announce writes how the zone's other directors announce, one of the same site before the others.
func (a *allocator) announce() string {
	var others []*Director
	for i := range a.f.Directors {
		d := &a.f.Directors[i]
		if b := a.f.Blade(d.Blade); b != nil && b.Zone == a.zone && d.announces() {
			others = append(others, d)
		}
	}
	slices.SortStableFunc(others, func(x, y *Director) int {
		return cmp.Compare(a.distance(x), a.distance(y))
	})
	if i := slices.IndexFunc(others, func(d *Director) bool { return d.VRRP != nil }); i >= 0 {
		return beside(*others[i].VRRP, len(others))
	}
	if len(others) > 0 && others[0].BGP != nil {
		b := others[0].BGP
		return fmt.Sprintf("{bgp: {as: %d, peer-as: %d, bfd: %s}}", b.AS, b.PeerAS, writtenBFD(b.BFD))
	}
	o := OSPF{Area: "0.0.0.0", Hello: defaultHello, Dead: defaultDead, BFD: buildBFD(bfdDoc{on: true})}
	if len(others) > 0 {
		o = *others[0].OSPF
	}
	return fmt.Sprintf("{ospf: {area: %s, hello: %s, dead: %s, bfd: %s}}", o.Area, short(o.Hello), short(o.Dead), writtenBFD(o.BFD))
}

// sync writes the number under which all other directors of the site and zone tell each other of their connections, if they have one.
func (a *allocator) sync() string {
	number := 0
	for i := range a.f.Directors {
		d := &a.f.Directors[i]
		if b := a.f.Blade(d.Blade); b == nil || b.Zone != a.zone || b.Site != a.blade.Site {
			continue
		}
		if d.Sync == 0 || number != 0 && d.Sync != number {
			return ""
		}
		number = d.Sync
	}
	if number == 0 {
		return ""
	}
	return fmt.Sprintf(", sync: %d", number)
}

// beside writes how the second director of a pair announces; a third one announces nothing.
func beside(v VRRP, others int) string {
	const apart = 50
	switch {
	case others > 1:
		return "none"
	case v.Priority > apart:
		v.Priority -= apart
	default:
		v.Priority += apart
	}
	return fmt.Sprintf("{vrrp: {id: %d, priority: %d, interval: %s}}", v.ID, v.Priority, short(v.Interval))
}

// writtenBFD writes how routers are watched as a policy does.
func writtenBFD(b BFD) string {
	if !b.Enabled() || b == buildBFD(bfdDoc{on: true}) {
		return strconv.FormatBool(b.Enabled())
	}
	return fmt.Sprintf("{interval: %s, multiplier: %d}", short(b.Interval), b.Multiplier)
}

// distance is 0 for a director of the new one's site.
func (a *allocator) distance(d *Director) int {
	if a.f.index.blades[d.Blade].Site == a.blade.Site {
		return 0
	}
	return 1
}
