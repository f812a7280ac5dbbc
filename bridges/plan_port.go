package bridges

import (
	"fmt"
	"strconv"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

func (p *planner) planNamespaces() {
	for _, guest := range p.want.Namespaces {
		object := namespaceObject(guest)
		ns, exists := p.have.Namespaces[guest]
		if exists && ns.Ready {
			continue
		}
		reason := ""
		if exists {
			reason = "its file is there, but no namespace on it"
		}
		s := step(plan.Create, object, guest, nil, createNamespace{guest: guest})
		s.Reason = reason
		p.steps.Create = append(p.steps.Create, s)
	}
}

func namespaceObject(guest policy.GuestName) string { return "namespace " + string(guest) }

func (p *planner) planPort(port Port) {
	have, exists, ok := p.free(port.Name, port.Object(), port.Guest)
	if !ok {
		return
	}
	if p.blocked["bridge "+port.Bridge] {
		p.block(port.Object(), port.Guest, "bridge "+port.Bridge+" is blocked")
		return
	}
	if p.wanted[port.Bridge] != KindBridge {
		p.block(port.Object(), port.Guest, "its bridge "+port.Bridge+" is not one of this blade")
		return
	}
	if exists {
		if reason := p.unfit(port, have); reason != "" {
			p.remove(have, reason)
			exists = false
		}
	}
	if !exists {
		p.createPort(port)
		return
	}
	p.updatePort(port, have)
}

// unfit says why a link that bears the port's name has to be made anew.
func (p *planner) unfit(port Port, have Link) string {
	switch {
	case have.Kind != port.Kind:
		return fmt.Sprintf("it is a %s, not a %s", kindName(have.Kind), kindName(port.Kind))
	case port.Kind == KindTap && !have.Tap.Tap:
		return "it is a tun, not a tap"
	case port.Kind == KindTap && have.Tap.MultiQueue:
		return "it has several queues, and libvirt opens one"
	case port.Kind == KindVeth && have.Inside.Guest != port.Guest:
		return "its other end is not in the namespace of " + string(port.Guest)
	}
	return ""
}

func (p *planner) createPort(port Port) {
	detail := []string{"mac " + port.MAC.String()}
	if p.mtu != 0 {
		detail = append(detail, fmt.Sprintf("mtu %d", p.mtu))
	}
	if port.Kind == KindTap {
		p.create(port.Object(), port.Guest, detail, createTap{Port: port, mtu: p.mtu})
	} else {
		detail = append(detail, fmt.Sprintf("%s %s inside", port.Interface, port.GuestMAC))
		p.create(port.Object(), port.Guest, detail, createVeth{Port: port, mtu: p.mtu}, namespaceObject(port.Guest))
	}
	p.attach(port, 0, []string{"bridge " + port.Bridge, "up"}, port.Bridge)
}

func (p *planner) updatePort(port Port, have Link) {
	if have.Master != port.Bridge && have.Master != "" {
		// It leaves the old bridge before the filter's new rules, and joins the new one after them.
		p.update(&p.steps.Remove, port.Object(), port.Guest, []string{fromTo("bridge", have.Master, "")},
			setLink{name: port.Name, index: have.Index, state: stateDown, detach: true})
	}
	set := setLink{name: port.Name, index: have.Index}
	detail := p.common(&set, have, port.alias(), port.MAC)
	detail = append(detail, p.inside(&set, port, have.Inside)...)
	if have.Master == port.Bridge {
		detail = append(detail, set.forwarding.compare(port, have.Port)...)
	}
	p.update(&p.steps.Create, port.Object(), port.Guest, detail, set)
	switch {
	case have.Master != port.Bridge:
		p.attach(port, have.Index, []string{"bridge " + port.Bridge, "up"}, port.Bridge)
	case !have.Up:
		p.attach(port, have.Index, []string{"up"}, "")
	}
}

// inside compares the end of a veth that lies in the guest's namespace. Root in the guest can change it.
func (p *planner) inside(set *setLink, port Port, have End) []string {
	if port.Kind != KindVeth {
		return nil
	}
	var detail []string
	set.end = setEnd{guest: have.Guest, index: have.Index}
	if have.MAC != port.GuestMAC {
		set.end.mac = port.GuestMAC
		detail = append(detail, fromTo("mac inside", have.MAC.String(), port.GuestMAC.String()))
	}
	if p.mtu != 0 && have.MTU != p.mtu {
		set.end.mtu = p.mtu
		detail = append(detail, fromTo("mtu inside", strconv.Itoa(have.MTU), strconv.Itoa(p.mtu)))
	}
	return detail
}

func (p *planner) attach(port Port, index int, detail []string, master string) {
	set := setLink{name: port.Name, index: index, alias: port.alias(), master: master, state: stateUp}
	if master != "" {
		set.forwarding = setForwarding{closed: true, pin: port.GuestMAC} // before it is up
	}
	s := step(plan.Update, port.Object(), port.Guest, detail, set)
	s.needs = []string{"bridge " + port.Bridge}
	p.steps.Attach = append(p.steps.Attach, s)
}
