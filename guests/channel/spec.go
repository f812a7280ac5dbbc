package channel

import (
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Version is the version of this protocol. The two ends must agree on it; fields that one end does not know are ignored, so
// an added field needs no new version.
const Version = 1

// Port is the vsock port on which bladeguest listens.
const Port = 9640

// Bounds of a frame's JSON in bytes, by direction: a director of a thousand services fits into a request, while a reply is
// what a hostile guest can make the host read.
const (
	MaxRequest = 4 << 20
	MaxReply   = 256 << 10
)

// Bounds of what is inside a reply; DecodeReply refuses more.
const (
	maxServices     = 4096
	maxDestinations = 4096 // of all services together
	maxVIPs         = 2048
	maxProbes       = 4096
	maxDaemons      = 16
	maxName         = 63  // bytes of a name, RFC 1123
	maxText         = 200 // bytes of a reason or an error
)

// Request is what the host sends. Exactly one of the pointers is set.
type Request struct {
	ID       uint64    `json:"id"` // chosen by the host, returned in the reply
	Hello    *Hello    `json:"hello,omitempty"`
	Apply    *Apply    `json:"apply,omitempty"`
	Status   *Query    `json:"status,omitempty"`
	Shutdown *Shutdown `json:"shutdown,omitempty"`
}

// Reply is what the guest sends: an error, or what was asked for (a Status for Apply and Query, neither for Shutdown).
type Reply struct {
	ID     uint64  `json:"id"`
	Error  string  `json:"error,omitempty"`
	Hello  *Hello  `json:"hello,omitempty"`
	Status *Status `json:"status,omitempty"`
}

// Hello is the first request of a connection and its reply.
type Hello struct {
	Version  int    `json:"version"`
	Software string `json:"software"` // for people: "bladenet 0.1.0"
}

// Apply hands the guest its whole wanted state.
type Apply struct {
	Revision string           `json:"revision"`
	Guest    policy.GuestName `json:"guest"`
	Role     policy.Role      `json:"role"` // a guest whose image is for another role says so in its status
	Inside   policy.Inside    `json:"inside"`
	Balancer policy.Balancer  `json:"balancer"` // directors only
}

// Query asks for a Status.
type Query struct {
	Count bool `json:"count,omitempty"` // read what each real server has to do, which takes as long as the table is large, and what probes did
}

// Shutdown asks the guest to power itself off, or to reboot, after it has withdrawn its VIPs.
type Shutdown struct {
	Reboot bool `json:"reboot,omitempty"`
}

// Status is what a guest says of itself.
type Status struct {
	Software string           `json:"software"`
	Guest    policy.GuestName `json:"guest"`
	Revision string           `json:"revision"`         // revision that the guest holds; empty: none yet
	Error    string           `json:"error,omitempty"`  // why the guest is not what the revision wants; empty: it is
	Uptime   time.Duration    `json:"uptime"`           // of bladeguest, not of the machine
	Checks   int              `json:"checks,omitempty"` // health checks that run
	Probes   []ProbeStatus    `json:"probes,omitempty"` // where somebody asked (Query)
	VIPs     []VIPStatus      `json:"vips,omitempty"`
	Services []ServiceStatus  `json:"services,omitempty"`
	Announce AnnounceStatus   `json:"announce"`
	Server   *ServerStatus    `json:"server,omitempty"`  // real servers only
	Omitted  int              `json:"omitted,omitempty"` // destinations left out to fit MaxReply; those that are well go first
}

// VIPStatus says whether a VIP is on the guest's loopback, which is what announces it.
type VIPStatus struct {
	Address netip.Addr `json:"address"`
	Up      bool       `json:"up"`
	Reason  string     `json:"reason,omitempty"` // why it is not
}

// ServiceStatus is one virtual service.
type ServiceStatus struct {
	Service      policy.ServiceName  `json:"service"`
	VIP          netip.Addr          `json:"vip"`
	Protocol     policy.Protocol     `json:"proto"`
	Port         uint16              `json:"port"`
	Up           bool                `json:"up"`              // has its quorum
	Announced    bool                `json:"announced"`       // its VIP is up
	Short        bool                `json:"short,omitempty"` // without spare real servers it has no quorum
	Destinations []DestinationStatus `json:"destinations,omitempty"`
}

// DestinationStatus is one real server of a virtual service.
type DestinationStatus struct {
	Guest   policy.GuestName `json:"guest"`
	Address netip.Addr       `json:"address"`
	Weight  int              `json:"weight"` // as it is in use, 0: takes no new connection
	Up      bool             `json:"up"`
	Unheard bool             `json:"unheard,omitempty"` // it is up by its check, and not heard from the VIP
	Reason  string           `json:"reason,omitempty"`
	Since   time.Time        `json:"since,omitzero"` // of Up, by the guest's clock; zero: not checked yet
	Load
}

// Load is what a real server has to do, as the director's kernel counts it; all 0 where nobody asked (Query) and nothing is drained.
type Load struct {
	Active   int    `json:"active,omitempty"`   // established connections
	Inactive int    `json:"inactive,omitempty"` // others that are remembered
	NewRate  uint64 `json:"new_rate,omitempty"` // new connections, packets and bytes a second, towards it, averaged over some seconds
	Packets  uint64 `json:"packets,omitempty"`
	Bytes    uint64 `json:"bytes,omitempty"`
	Total    Total  `json:"total,omitzero"`
}

// Total is what came for a real server since it is in the director's table.
type Total struct {
	Connections uint64 `json:"connections,omitempty"`
	Packets     uint64 `json:"packets,omitempty"`
	Bytes       uint64 `json:"bytes,omitempty"`
}

// ProbeStatus is what one health check did since the helper began.
type ProbeStatus struct {
	ID     string           `json:"id"`
	Guest  policy.GuestName `json:"guest"`
	Up     bool             `json:"up"`
	Took   time.Duration    `json:"took,omitempty"` // of the last probe that ended
	Ended  uint64           `json:"ended,omitempty"`
	Failed uint64           `json:"failed,omitempty"`
}

// AnnounceStatus says how the routing daemons are.
type AnnounceStatus struct {
	Protocol string         `json:"protocol,omitempty"` // ospf, bgp, vrrp; empty: none wanted
	Daemons  []DaemonStatus `json:"daemons,omitempty"`
	Full4    int            `json:"full4"`           // neighbours with a full adjacency (OSPFv2) or an established session (BGP, IPv4)
	Full6    int            `json:"full6"`           // the same of OSPFv3 or BGP over IPv6
	Holds    []netip.Addr   `json:"holds,omitempty"` // VIPs that it has by VRRP, on eth0
	Error    string         `json:"error,omitempty"`
}

// ServerStatus says how the program of a real server is.
type ServerStatus struct {
	Running  bool   `json:"running"`
	Restarts int    `json:"restarts,omitempty"` // since the machine booted
	Ended    string `json:"ended,omitempty"`    // how it ended last
}

// DaemonStatus is one routing daemon.
type DaemonStatus struct {
	Name     string `json:"name"`
	Alive    bool   `json:"alive"`
	Restarts int    `json:"restarts,omitempty"`
}
