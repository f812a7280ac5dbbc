package alert

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Kind says what is wrong.
type Kind string

// The kinds.
const (
	ServerDown     Kind = "real-server-down" // a director's checks of it fail
	VIPMissing     Kind = "vip-missing"      // a real server passes its checks and is not heard from a VIP, others are: it is out of the rotation
	VIPUnheard     Kind = "vip-unheard"      // no real server of a site is heard from a VIP, and their weights are kept
	ServiceDown    Kind = "service-down"     // fewer real servers are up than its quorum needs
	VIPWithdrawn   Kind = "vip-withdrawn"    // no service of it answers at that director
	DirectorSilent Kind = "director-silent"  // its helper does not answer the blade
	GuestSilent    Kind = "guest-silent"     // a real server in a virtual machine: its helper does not answer the blade
	Limited        Kind = "guest-limited"    // one of its ports loses packets to a limit
	Waiting        Kind = "waiting"          // the blade is not as its policy says, and why
)

// State says whether an alert begins or ends.
type State string

// The states.
const (
	Firing   State = "firing"
	Resolved State = "resolved"
)

// Alert is one thing that is wrong. Since is when the agent saw it first.
type Alert struct {
	State      State              `json:"state"`
	Kind       Kind               `json:"kind"`
	Service    policy.ServiceName `json:"service,omitempty"`
	VIPs       []netip.Addr       `json:"vips,omitempty"`
	RealServer policy.GuestName   `json:"real_server,omitempty"`
	Site       policy.SiteName    `json:"site,omitempty"` // of the real server, else of the director
	Director   policy.GuestName   `json:"director,omitempty"`
	Guest      policy.GuestName   `json:"guest,omitempty"`  // that is limited or silent
	Object     string             `json:"object,omitempty"` // its port, or that of a waiting step
	Reason     string             `json:"reason,omitempty"`
	Since      time.Time          `json:"since"`
	Text       string             `json:"text"` // all of it, for people
}

// Message is the body of one POST.
type Message struct {
	Version string           `json:"version"` // v1
	Blade   policy.BladeName `json:"blade"`
	Time    time.Time        `json:"time"`
	Alerts  []Alert          `json:"alerts"`            // those that end first, then by service, VIP and so on
	Omitted int              `json:"omitted,omitempty"` // alerts beyond those that one message carries
}

// key tells alerts apart; the reason may change while one lasts.
type key struct {
	kind             Kind
	service          policy.ServiceName
	vips             string
	server, director policy.GuestName
	guest            policy.GuestName
	object           string
}

func (a Alert) key() key {
	return key{a.Kind, a.Service, join(a.VIPs), a.RealServer, a.Director, a.Guest, a.Object}
}

func join(addrs []netip.Addr) string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return strings.Join(out, ", ")
}

func compare(a, b Alert) int {
	return cmp.Or(
		-cmp.Compare(a.State, b.State), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Service, b.Service), slices.CompareFunc(a.VIPs, b.VIPs, netip.Addr.Compare),
		cmp.Compare(a.RealServer, b.RealServer), cmp.Compare(a.Director, b.Director), cmp.Compare(a.Guest, b.Guest), cmp.Compare(a.Object, b.Object),
	)
}

// String says the alert in one line: service, VIPs, real server, site, director, reason and since when.
func (a Alert) String() string {
	var b strings.Builder
	if a.State == Resolved {
		b.WriteString("over: ")
	}
	where := ""
	if len(a.VIPs) > 0 {
		where = " at " + join(a.VIPs)
	}
	switch a.Kind {
	case ServerDown:
		fmt.Fprintf(&b, "%s%s: real server %s (%s) is down for director %s", a.Service, where, a.RealServer, a.Site, a.Director)
	case VIPMissing:
		fmt.Fprintf(&b, "%s%s: real server %s (%s) is well and not heard from the VIP by director %s", a.Service, where, a.RealServer, a.Site, a.Director)
	case VIPUnheard:
		fmt.Fprintf(&b, "director %s (%s): its probes through VIP%s are not answered", a.Director, a.Site, strings.TrimPrefix(where, " at"))
	case ServiceDown:
		fmt.Fprintf(&b, "%s%s: has lost its quorum at director %s (%s)", a.Service, where, a.Director, a.Site)
	case VIPWithdrawn:
		fmt.Fprintf(&b, "VIP%s: withdrawn by director %s (%s)", strings.TrimPrefix(where, " at"), a.Director, a.Site)
	case DirectorSilent:
		fmt.Fprintf(&b, "director %s (%s): does not answer its blade", a.Director, a.Site)
	case GuestSilent:
		fmt.Fprintf(&b, "guest %s (%s): does not answer its blade", a.Guest, a.Site)
	case Limited:
		fmt.Fprintf(&b, "guest %s (%s): %s loses packets to a limit", a.Guest, a.Site, a.Object)
	default:
		fmt.Fprintf(&b, "%s: waits", a.Object)
	}
	if a.Reason != "" {
		b.WriteString(": " + a.Reason)
	}
	fmt.Fprintf(&b, ", since %s", a.Since.UTC().Format(time.RFC3339))
	return b.String()
}
