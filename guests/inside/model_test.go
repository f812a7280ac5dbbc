package inside

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// model is a network namespace of the mind: it carries out changes on a State as Linux would.
type model struct{ State }

var errModel = errors.New("the model was told to fail")

// newModel returns a fresh namespace: a loopback that is down, and the interfaces.
func newModel(links ...Link) *model {
	m := &model{State{Links: []Link{{Index: 1, Name: "lo"}}, Sysctls: map[string]string{}}}
	for _, l := range links {
		l.Index = len(m.Links) + 1
		m.Links = append(m.Links, l)
	}
	return m
}

// clone returns a State that later changes leave alone, with the sysctls that the kernel shows: those of interfaces that are there.
func (m *model) clone(want policy.Inside) State {
	s := State{Links: slices.Clone(m.Links), Addresses: slices.Clone(m.Addresses), Routes: slices.Clone(m.Routes), Sysctls: map[string]string{}}
	for _, c := range want.Sysctls {
		if m.exists(c.Key) {
			s.Sysctls[c.Key] = m.value(c.Key)
		}
	}
	return s
}

func (m *model) exists(key string) bool {
	scope, _ := splitConf(key)
	_, there := m.named(scope)
	return scope == "" || scope == "all" || there
}

func (m *model) value(key string) string {
	if v, ok := m.Sysctls[key]; ok {
		return v
	}
	return "0"
}

// apply does at most n steps; a negative n does all.
func (m *model) apply(steps []Step, n int) error {
	for _, s := range steps {
		if s.Verb == plan.Blocked {
			continue
		}
		if n == 0 {
			return errModel
		}
		n--
		if err := m.change(s.do); err != nil {
			return fmt.Errorf("%s %s: %w", s.Verb, s.Object, err)
		}
	}
	return nil
}

func (m *model) change(c change) error {
	switch c := c.(type) {
	case rename:
		return m.rename(c)
	case setUp:
		for i := range m.Links {
			if m.Links[i].Index == c.index {
				m.Links[i].Up = true
			}
		}
	case setSysctl:
		return m.setSysctl(c)
	case removeAddress:
		m.removeAddress(c)
	case addAddress:
		m.addAddress(c)
	case setLifetime:
		for i, a := range m.Addresses {
			if a.Link == c.index && a.Prefix == c.prefix {
				m.Addresses[i].Lasting, m.Addresses[i].Preferred = true, c.preferred
			}
		}
	case setRoute:
		if !m.reaches(c.Link, c.Via) {
			return errors.New("network is unreachable")
		}
		m.Routes = slices.DeleteFunc(m.Routes, func(r Route) bool { return sameKey(r, c.Route) })
		m.Routes = append(m.Routes, c.Route)
	case removeRoute:
		m.Routes = slices.DeleteFunc(m.Routes, func(r Route) bool { return r == c.Route })
	default:
		return fmt.Errorf("unknown change %T", c)
	}
	return nil
}

// rename sets an interface down for it, and with that it loses its IPv6 addresses and all routes.
func (m *model) rename(c rename) error {
	if _, taken := m.named(c.name); taken {
		return errors.New("file exists")
	}
	for i := range m.Links {
		if m.Links[i].Index == c.index {
			m.Links[i].Name, m.Links[i].Up = c.name, false
		}
	}
	m.Addresses = slices.DeleteFunc(m.Addresses, func(a Address) bool { return a.Link == c.index && a.Prefix.Addr().Is6() })
	m.Routes = slices.DeleteFunc(m.Routes, func(r Route) bool { return r.Link == c.index })
	return nil
}

func (m *model) setSysctl(c setSysctl) error {
	if !m.exists(c.key) {
		return errors.New("no such file or directory")
	}
	m.Sysctls[c.key] = c.value
	if scope, _ := splitConf(c.key); scope == "all" {
		for _, l := range m.Links {
			m.Sysctls[strings.Replace(c.key, "/all/", "/"+l.Name+"/", 1)] = c.value
		}
	}
	return nil
}

func (m *model) removeAddress(c removeAddress) {
	was := slices.IndexFunc(m.Addresses, func(a Address) bool { return a.Link == c.index && a.Prefix == c.prefix && a.Peer == c.peer })
	if was < 0 {
		return
	}
	gone := m.Addresses[was]
	m.Addresses = slices.DeleteFunc(m.Addresses, func(a Address) bool {
		return a == gone || !gone.Secondary && a.Link == gone.Link && a.Secondary && a.Prefix.Masked() == gone.Prefix.Masked()
	})
	left := slices.ContainsFunc(m.Addresses, func(a Address) bool { return a.Link == c.index && a.Prefix.Addr().Is4() })
	if gone.Prefix.Addr().Is4() && !left {
		m.Routes = slices.DeleteFunc(m.Routes, func(r Route) bool { return r.Link == c.index && r.Destination.Addr().Is4() })
	}
}

func (m *model) addAddress(c addAddress) {
	secondary := false
	for _, a := range m.Addresses {
		if a.Link == c.index && a.Prefix == c.prefix && !a.Peer.IsValid() {
			return // EEXIST
		}
		secondary = secondary || a.Link == c.index && c.prefix.Addr().Is4() && a.Prefix.Masked() == c.prefix.Masked()
	}
	m.Addresses = append(m.Addresses, Address{Link: c.index, Prefix: c.prefix, Broadcast: c.broadcast, Preferred: c.preferred, Lasting: true, Secondary: secondary})
}

// reaches says whether a gateway is on one of an interface's subnets.
func (m *model) reaches(index int, via netip.Addr) bool {
	l, _ := m.link(index)
	return l.Up && (!via.IsValid() || via.IsLinkLocalUnicast() ||
		slices.ContainsFunc(m.Addresses, func(a Address) bool { return a.Link == index && a.Prefix.Contains(via) }))
}
