package guests

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// Spec is one guest's definition: what a driver writes when it creates the guest and reads back when it observes it.
type Spec struct {
	Name     policy.GuestName `json:"name"`
	Driver   policy.Driver    `json:"driver"`
	Image    string           `json:"image"`              // identity in the store, name-digest; the clone stands on it
	Hostname string           `json:"hostname,omitempty"` // LXC only: a machine is told its name by its helper
	// Privileged, LXC only: its root is the host's, without a user namespace in between.
	Privileged bool            `json:"privileged,omitempty"`
	Memory     int64           `json:"memory"` // bytes
	CPUs       int             `json:"cpus"`
	PIDs       int             `json:"pids,omitempty"`      // processes and threads, LXC only
	IOWeight   int             `json:"io_weight,omitempty"` // part of a busy disk, LXC only; 0: the kernel's own
	Disk       int64           `json:"disk,omitempty"`      // bytes that the clone may take, LXC only; 0: no bound
	CID        uint32          `json:"cid,omitempty"`       // vsock context identifier, KVM only
	Ports      []Port          `json:"ports,omitempty"`     // taps in the guest's order, KVM only: a container's links are in its namespace
	Volumes    []policy.Volume `json:"volumes,omitempty"`   // LXC only
}

// Port is a tap on the blade and the guest's own address on it.
type Port struct {
	Name string     `json:"name"`
	MAC  policy.MAC `json:"mac"`
}

// Define makes the definition of a wanted guest on an image of the store.
func Define(g policy.Guest, image string) Spec {
	s := Spec{Name: g.Name, Driver: g.Driver, Image: image, Memory: g.Memory, CPUs: g.CPUs}
	if g.Driver != policy.DriverKVM {
		s.Hostname, s.Privileged = cmp.Or(g.Inside.Hostname, string(g.Name)), g.Privileged
		s.Volumes, s.PIDs = g.Volumes, cmp.Or(g.PIDs, policy.DefaultPIDs)
		s.IOWeight, s.Disk = g.IOWeight, g.Disk
		return s
	}
	s.CID = g.CID
	for _, p := range g.Ports {
		s.Ports = append(s.Ports, Port{Name: p.Name, MAC: p.MAC})
	}
	return s
}

// Object names the guest as plans do: domain dir-1, container www-1.
func (s Spec) Object() string {
	kind := map[policy.Driver]string{policy.DriverKVM: "domain ", policy.DriverLXC: "container "}[s.Driver]
	return kind + string(s.Name)
}

// Changes says in words what differs from s in the definition w, one entry a field; none means equal.
func (s Spec) Changes(w Spec) []string {
	var out []string
	add := func(field string, differs bool, have, want any) {
		if differs {
			out = append(out, fmt.Sprintf("%s %v -> %v", field, have, want))
		}
	}
	add("image", s.Image != w.Image, s.Image, w.Image)
	add("hostname", s.Hostname != w.Hostname, s.Hostname, w.Hostname)
	add("privileged", s.Privileged != w.Privileged, s.Privileged, w.Privileged)
	add("memory", s.Memory != w.Memory, Size(s.Memory), Size(w.Memory))
	add("cpus", s.CPUs != w.CPUs, s.CPUs, w.CPUs)
	add("pids", s.PIDs != w.PIDs, s.PIDs, w.PIDs)
	add("io-weight", s.IOWeight != w.IOWeight, s.IOWeight, w.IOWeight)
	add("disk", s.Disk != w.Disk, Size(s.Disk), Size(w.Disk))
	add("cid", s.CID != w.CID, s.CID, w.CID)
	add("ports", !slices.Equal(s.Ports, w.Ports), portList(s.Ports), portList(w.Ports))
	add("volumes", !slices.Equal(s.Volumes, w.Volumes), volumeList(s.Volumes), volumeList(w.Volumes))
	return out
}

func portList(ports []Port) string {
	words := make([]string, 0, len(ports))
	for _, p := range ports {
		words = append(words, p.Name+"="+p.MAC.String())
	}
	return "[" + strings.Join(words, " ") + "]"
}

func volumeList(volumes []policy.Volume) string {
	words := make([]string, 0, len(volumes))
	for _, v := range volumes {
		words = append(words, volumeWords(v))
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// volumeWords says where a volume is: data at /srv.
func volumeWords(v policy.Volume) string {
	words := string(v.Name) + " at " + v.Path
	if v.ReadOnly {
		words += " read-only"
	}
	return words
}

// Size writes bytes in the largest binary unit that divides them: 512MiB.
func Size(bytes int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if bytes >= u.size && bytes%u.size == 0 {
			return fmt.Sprintf("%d%s", bytes/u.size, u.name)
		}
	}
	return fmt.Sprintf("%dB", bytes)
}

// Phase is how far a guest's life is, as observed.
type Phase string

// The phases. Partial means that a clone or a definition is missing: what an interrupted creation or removal leaves behind.
const (
	Partial Phase = "partial"
	Stopped Phase = "stopped"
	Running Phase = "running"
	Paused  Phase = "paused"  // frozen by an operator, or by the hypervisor after a disk error
	Foreign Phase = "foreign" // somebody else's guest that holds the name; never touched
)

// Observed is one guest as its driver finds it now.
type Observed struct {
	Spec
	Phase   Phase     `json:"phase"`
	Cloned  bool      `json:"cloned"`
	Defined bool      `json:"defined"`
	Stale   bool      `json:"stale,omitempty"`   // written by another layout of the driver's templates, or edited by hand
	PID     int       `json:"pid,omitempty"`     // a container's init or a domain's qemu, in the blade's PID namespace
	Since   time.Time `json:"since,omitzero"`    // start of PID
	Reason  string    `json:"reason,omitempty"`  // what the driver says of the phase: crashed, shut off
	Resumes bool      `json:"resumes,omitempty"` // Paused by the hypervisor, whose reason is gone: Start lets it go on
}

// Driver runs guests of one kind. Every method may be called again after it failed or was interrupted anywhere and then ends in
// the same state; none waits longer than its context. Errors read `verb object: cause`.
type Driver interface {
	// Observe lists our guests, partly made ones included, and foreign ones that hold a name a guest of ours could want.
	Observe(ctx context.Context) ([]Observed, error)
	// Create makes clone and definition of a guest that does not run, or makes an older one as wanted; a clone of another image is replaced.
	Create(ctx context.Context, s Spec) error
	// Start boots a created guest, or lets one that the hypervisor paused go on, and returns when it runs.
	Start(ctx context.Context, name policy.GuestName) error
	// Stop asks the guest to end, waits at most grace, then ends it.
	Stop(ctx context.Context, name policy.GuestName, grace time.Duration) error
	// Destroy removes a stopped guest with its clone, definition and logs.
	Destroy(ctx context.Context, name policy.GuestName) error
	// ConsoleLog is the file with what the guest has printed on its console; it may not exist yet.
	ConsoleLog(name policy.GuestName) string
	// Events calls wake, from any goroutine, after a guest may have changed, until the context ends. It may call it for nothing.
	Events(ctx context.Context, wake func()) error
}

// Images is what planning needs from a store of base images.
type Images interface {
	// Resolve returns the identity of the newest image of that name for that driver, or why there is none and what to do.
	Resolve(name string, driver policy.Driver) (string, error)
	// Fits says why an image of that identity is of no use to guests of a role: a real server needs a service, a director has none.
	Fits(id string, role policy.Role) error
}
