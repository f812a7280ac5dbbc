package api

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/plan"
)

// Version is the version of the messages; it stands in every path (/v1/…) and in every printed document.
const Version = "v1"

// DefaultSocket is where bladed listens.
const DefaultSocket = "/run/bladenet/bladed.sock"

// File is one policy file, by its name in the policy folder.
type File struct {
	Name string `json:"name"`
	Data string `json:"data"`
}

// PlanRequest asks what would change. Without files and numbers it is the daemon's own policy folder that is planned. From asks for the
// way between two revisions, whatever the blade looks like now.
type PlanRequest struct {
	Files    []File `json:"files,omitempty"`
	Revision int    `json:"revision,omitempty"`
	From     int    `json:"from,omitempty"`
}

// Plan is the answer: every step in the order in which it would be done, and what was found in the files.
type Plan struct {
	Version     string             `json:"version"`
	Blade       policy.BladeName   `json:"blade"`
	Revision    int                `json:"revision"` // the revision that is in force now
	Steps       []plan.Step        `json:"steps"`
	Notes       []string           `json:"notes,omitempty"` // what an operator may want to do besides
	Diagnostics policy.Diagnostics `json:"diagnostics,omitempty"`
	Given       Given              `json:"given,omitzero"` // not between two revisions
}

// Given is what a blade's guests may take together, and what the blade has.
type Given struct {
	Memory     int64 `json:"memory"` // bytes
	MemoryHere int64 `json:"memory_here"`
	CPUs       int   `json:"cpus"`
	CPUsHere   int   `json:"cpus_here"`
}

// Over says of what the guests are given more than there is, a sentence each.
func (g Given) Over() []string {
	var out []string
	if g.Memory > g.MemoryHere {
		out = append(out, fmt.Sprintf("guests are given %d MiB of memory, the blade has %d MiB: when they take it, the kernel ends processes", g.Memory>>20, g.MemoryHere>>20))
	}
	if g.CPUs > g.CPUsHere {
		out = append(out, fmt.Sprintf("guests are given %d processors, the blade has %d: they share them", g.CPUs, g.CPUsHere))
	}
	return out
}

// ApplyRequest makes the policy folder a revision and the blade so.
type ApplyRequest struct {
	Note    string        `json:"note,omitempty"`
	Confirm time.Duration `json:"confirm,omitempty"` // return by itself unless somebody confirms within it, in nanoseconds
}

// ConfirmRequest keeps the revision that waits to be confirmed; number 0 is whichever it is.
type ConfirmRequest struct {
	Revision int `json:"revision,omitempty"`
}

// Confirmed is the answer to it.
type Confirmed struct {
	Version  string `json:"version"`
	Revision int    `json:"revision"`
}

// RollbackRequest makes an earlier revision's files a new revision and the blade so; number 0 is the last good one before the one in
// force, or ends a trial.
type RollbackRequest struct {
	Revision int           `json:"revision,omitempty"`
	Confirm  time.Duration `json:"confirm,omitempty"`
}

// Revisions lists the revisions on disk, oldest first.
type Revisions struct {
	Version   string     `json:"version"`
	InForce   int        `json:"in_force"`
	Revisions []Revision `json:"revisions"`
}

// RevisionState is how far a revision is.
type RevisionState string

// The states. A revision on trial is in force too.
const (
	InForce   RevisionState = "in force"
	OnTrial   RevisionState = "on trial"
	Followed  RevisionState = "followed" // by another one
	LeftAgain RevisionState = "returned from"
)

// Revision is one revision; its files are there when it was asked for by number.
type Revision struct {
	Number   int           `json:"number"`
	Time     time.Time     `json:"time"`
	Note     string        `json:"note,omitempty"`
	State    RevisionState `json:"state"`
	Reason   string        `json:"reason,omitempty"` // why it was returned from
	Guests   int           `json:"guests"`           // of this blade; -1 where its files are no policy for this blade any more
	Services int           `json:"services"`
	Files    []File        `json:"files,omitempty"`
}

// Trial is what the revision in force must still pass.
type Trial struct {
	Back     int       `json:"back"`              // the revision that the blade returns to
	Verified bool      `json:"verified"`          // the blade was observed to be as it says
	Deadline time.Time `json:"deadline,omitzero"` // confirmed until then, or returned from
}

// MostNames is how many guests one request may name.
const MostNames = 256

// SpawnRequest asks for new guests on the daemon's blade, all of them or none.
type SpawnRequest struct {
	Role     policy.Role          `json:"role"`
	Names    []policy.GuestName   `json:"names"`
	Blade    policy.BladeName     `json:"blade,omitempty"`
	Site     policy.SiteName      `json:"site,omitempty"`
	Services []policy.ServiceName `json:"services,omitempty"`
	Weight   int                  `json:"weight,omitempty"`
	Driver   policy.Driver        `json:"driver,omitempty"` // empty: the role's own
	Image    string               `json:"image,omitempty"`
	DryRun   bool                 `json:"dry_run,omitempty"`

	Privileged bool `json:"privileged,omitempty"` // without a user namespace
	Spare      bool `json:"spare,omitempty"`      // off while the others of its services suffice
	Keep       bool `json:"keep,omitempty"`       // leave what there is when it fails
}

// DestroyRequest asks that guests be taken out of the policy and removed whole.
type DestroyRequest struct {
	Names   []policy.GuestName `json:"names"`
	Drain   time.Duration      `json:"drain,omitempty"`   // how long to wait for a real server's connections to end, in nanoseconds
	Volumes bool               `json:"volumes,omitempty"` // remove their volumes too; of guests that are gone already only these
}

// PowerRequest asks that a guest be started, stopped or restarted.
type PowerRequest struct {
	Name    policy.GuestName `json:"name"`
	Drain   time.Duration    `json:"drain,omitempty"`   // how long a real server's connections may take to end before it is stopped, in nanoseconds
	Reclone bool             `json:"reclone,omitempty"` // of a restart: only if its image has a newer build, and on that one
}

// LogRequest asks for what a guest has printed on its console.
type LogRequest struct {
	Name   policy.GuestName
	Lines  int  // how many of the last; 0 means all that is kept, at most 1 MiB
	Follow bool // go on with what comes
}

// DrainRequest asks that a guest take no new connections, or take them again.
type DrainRequest struct {
	Name  policy.GuestName `json:"name"`
	Undo  bool             `json:"undo,omitempty"`
	Force bool             `json:"force,omitempty"` // though a service would lose its quorum
	Wait  time.Duration    `json:"wait,omitempty"`  // for its connections to end, in nanoseconds
}

// Event is one line of the stream (NDJSON) that apply, spawn and destroy answer with. The last event of a stream has
// Done set; Error is empty where all went well.
type Event struct {
	Time        time.Time          `json:"time"`
	Elapsed     time.Duration      `json:"elapsed"`        // since the request began, in nanoseconds
	Took        time.Duration      `json:"took,omitempty"` // this step alone
	Message     string             `json:"message,omitempty"`
	Step        *plan.Step         `json:"step,omitempty"`
	Diagnostics policy.Diagnostics `json:"diagnostics,omitempty"`
	Packet      *TracedPacket      `json:"packet,omitempty"`
	Done        bool               `json:"done,omitempty"`
	Error       string             `json:"error,omitempty"`
}

// EntryKind is what an entry of the journal is about.
type EntryKind string

// The kinds.
const (
	Agent     EntryKind = "agent"    // bladed began or ended
	Revised   EntryKind = "revision" // another one is in force, was signed off or returned from
	Applied   EntryKind = "applied"  // a step that a revision asked for was done
	Repaired  EntryKind = "repaired" // a step was done because the blade had drifted from what is in force
	IsWaiting EntryKind = "waiting"  // something cannot be as it should, and why
	Settled   EntryKind = "settled"  // it is now
	GuestIs   EntryKind = "guest"    // a guest began or ended
	Rotation  EntryKind = "rotation" // a director gives a real server weight, or takes it; a VIP comes or goes
	Fight     EntryKind = "fight"    // somebody undoes what the agent does, again and again
)

// Entry is one line of the journal. Numbers count up by one, over the daemon's restarts too.
type Entry struct {
	Number    uint64    `json:"number"`
	Time      time.Time `json:"time"`
	Kind      EntryKind `json:"kind"`
	Revision  int       `json:"revision,omitempty"`
	Subsystem string    `json:"subsystem,omitempty"`
	Verb      plan.Verb `json:"verb,omitempty"`
	Object    string    `json:"object,omitempty"`
	Guest     string    `json:"guest,omitempty"`
	Message   string    `json:"message,omitempty"`
}

// EventsRequest asks for entries of the journal.
type EventsRequest struct {
	After  uint64 // the number of the last entry that the client has seen
	Follow bool   // go on with those that come
}

// DoctorRequest asks what is wrong with the host, and to fix what is safe to fix.
type DoctorRequest struct {
	Fix bool `json:"fix,omitempty"`
}

// Doctor is the answer: one finding or more for each thing looked at.
type Doctor struct {
	Version  string           `json:"version"`
	Blade    policy.BladeName `json:"blade,omitempty"`
	Findings []Finding        `json:"findings"`
}

// FindingLevel says how bad a finding is.
type FindingLevel string

// The levels: nothing was found; something may go wrong; something does.
const (
	Well     FindingLevel = "ok"
	Doubtful FindingLevel = "warning"
	Wrong    FindingLevel = "error"
)

// Finding is what was found of one thing, and what to do about it.
type Finding struct {
	Check   string       `json:"check"`
	Level   FindingLevel `json:"level"`
	Message string       `json:"message,omitempty"`
	Remedy  string       `json:"remedy,omitempty"`
	Fixable bool         `json:"fixable,omitempty"` // doctor --fix does it, until the next boot
	Fixed   bool         `json:"fixed,omitempty"`
}

// Status is the blade as the daemon sees it now.
type Status struct {
	Version   string           `json:"version"`
	Blade     policy.BladeName `json:"blade"`
	Site      policy.SiteName  `json:"site,omitempty"`
	Zone      policy.ZoneName  `json:"zone,omitempty"`
	Trunk     string           `json:"trunk,omitempty"`
	Revision  int              `json:"revision"` // 0: none yet
	Trial     *Trial           `json:"trial,omitempty"`
	Converged bool             `json:"converged"`
	Pending   string           `json:"pending,omitempty"` // why the policy folder is not the revision in force
	Waiting   []Waiting        `json:"waiting,omitempty"`
	Links     []Link           `json:"links"`
	Guests    []Guest          `json:"guests"`
	Services  []Service        `json:"services"`
	Filter    Filter           `json:"filter"`
}

// Waiting is something that is not as it should be: what, since when and why.
type Waiting struct {
	Step  plan.Step `json:"step"`
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"`
}

// Link is a bridge of the blade with its ports.
type Link struct {
	Bridge  string             `json:"bridge"`
	VLAN    policy.VLANID      `json:"vlan"`
	Network policy.NetworkName `json:"network"`
	Uplink  string             `json:"uplink"` // the 802.1Q link on the trunk
	Ports   []Port             `json:"ports"`
}

// Port is a port of a bridge.
type Port struct {
	Name      string           `json:"name"`
	Guest     policy.GuestName `json:"guest,omitempty"`
	Interface string           `json:"interface,omitempty"`
	MAC       policy.MAC       `json:"mac"`
	Up        bool             `json:"up"`
}

// Guest is a guest of this blade.
type Guest struct {
	Name       policy.GuestName `json:"name"`
	Role       policy.Role      `json:"role"`
	Driver     policy.Driver    `json:"driver"`
	Image      string           `json:"image"`
	Build      string           `json:"build,omitempty"`       // of its image, what its clone stands on
	NewerBuild string           `json:"newer_build,omitempty"` // of its image, what it would stand on if it was made anew
	State      string           `json:"state"`                 // running, stopped, absent
	Held       string           `json:"held,omitempty"`        // why it is stopped and stays so
	Drained    bool             `json:"drained,omitempty"`     // takes no new connections
	Since      time.Time        `json:"since,omitzero"`
	Addresses  []string         `json:"addresses"`
	Director   *Director        `json:"director,omitempty"`
	Machine    *Machine         `json:"machine,omitempty"` // real servers that are virtual machines
}

// Director is what a director of this blade last said of itself.
type Director struct {
	Answering bool      `json:"answering"`
	InForce   bool      `json:"in_force"` // it has applied the revision that the blade has
	Seen      time.Time `json:"seen,omitzero"`
	Error     string    `json:"error,omitempty"`
	Neighbors int       `json:"neighbors"` // routers with a full adjacency, both families added

	Protocol string       `json:"protocol,omitempty"` // by which it announces: ospf, bgp, vrrp
	Holds    []netip.Addr `json:"holds,omitempty"`    // VIPs that it has by VRRP
}

// Machine is what a real server that is a virtual machine last said of itself.
type Machine struct {
	Answering bool      `json:"answering"`
	InForce   bool      `json:"in_force"` // it has the network that the blade wants
	Seen      time.Time `json:"seen,omitzero"`
	Error     string    `json:"error,omitempty"`
	Running   bool      `json:"running"`            // its service does
	Restarts  int       `json:"restarts,omitempty"` // of its service, since the machine booted
	Ended     string    `json:"ended,omitempty"`    // how its service ended last
}

// Service is one VIP and port as one director of this blade balances it.
type Service struct {
	Director     policy.GuestName   `json:"director"`
	Service      policy.ServiceName `json:"service"`
	VIP          string             `json:"vip"`
	Protocol     policy.Protocol    `json:"protocol"`
	Port         uint16             `json:"port"`
	Up           bool               `json:"up"`
	Announced    bool               `json:"announced"`
	Destinations []Destination      `json:"destinations"`
}

// Destination is a real server of a service with the weight that it has in the director's kernel.
type Destination struct {
	Guest   policy.GuestName `json:"guest"`
	Address string           `json:"address"`
	Weight  int              `json:"weight"`
	Up      bool             `json:"up"`
	Unheard bool             `json:"unheard,omitempty"` // up by its check, and no probe through the VIP is answered
	Reason  string           `json:"reason,omitempty"`
	Load
}

// Load is what a real server has to do, as its director's kernel counts it: of a status that was asked with Count, some moments later, or while
// something is drained.
type Load struct {
	Active   int    `json:"active,omitempty"`   // established connections
	Inactive int    `json:"inactive,omitempty"` // others that are remembered
	NewRate  uint64 `json:"new_rate,omitempty"` // new connections a second, averaged over some seconds
	Packets  uint64 `json:"packets,omitempty"`  // a second, towards it
	Bytes    uint64 `json:"bytes,omitempty"`    // a second, towards it: answers do not pass the director
	Total    Total  `json:"total,omitzero"`     // since it is in the director's table
}

// Total is how many connections, packets and bytes came for a real server.
type Total struct {
	Connections uint64 `json:"connections,omitempty"`
	Packets     uint64 `json:"packets,omitempty"`
	Bytes       uint64 `json:"bytes,omitempty"`
}

// Filter is what the filter counted.
type Filter struct {
	VIPConntrack int               `json:"vip_conntrack"` // conntrack entries that name a VIP; 0 is the promise
	Dropped      map[string]uint64 `json:"dropped"`       // packets by reason

	// The same by port, the one that a packet came from and the one that it was for, and reason; what is 0 is left out.
	Ports map[string]map[string]uint64 `json:"ports,omitempty"`
}
