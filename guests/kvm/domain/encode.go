package domain

import (
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/guests"
	"github.com/bladenet/bladenet/guests/image"
	"github.com/bladenet/bladenet/policy"
)

// namespace marks our element in a domain's metadata.
const namespace = "https://bladenet.github.io/domain/1"

// layout counts changes of the definition below that a running machine needs a restart for.
const layout = 1

// Machine is everything that one domain definition is made of.
type Machine struct {
	guests.Spec
	Dir      string // the machine's folder: disk.qcow2, console.log
	Image    image.Image
	Emulated bool // run without hardware help: for a blade that is itself a machine without nesting
}

// The shape of https://libvirt.org/formatdomain.html, as far as we write it.
type (
	domainXML struct {
		XMLName  xml.Name    `xml:"domain"`
		Type     string      `xml:"type,attr"`
		Name     string      `xml:"name"`
		UUID     string      `xml:"uuid"`
		Metadata metadataXML `xml:"metadata"`
		Memory   sizeXML     `xml:"memory"`
		VCPU     int         `xml:"vcpu"`
		OS       osXML       `xml:"os"`
		Features featuresXML `xml:"features"`
		CPU      cpuXML      `xml:"cpu"`
		Clock    clockXML    `xml:"clock"`
		Off      string      `xml:"on_poweroff"`
		Reboot   string      `xml:"on_reboot"`
		Crash    string      `xml:"on_crash"`
		Devices  devicesXML  `xml:"devices"`
	}
	metadataXML struct {
		Guest markXML `xml:"bladenet:guest"`
	}
	markXML struct {
		Space  string `xml:"xmlns:bladenet,attr"`
		Name   string `xml:"name,attr"`
		Layout int    `xml:"layout,attr"`
		Image  string `xml:"image,attr"`
	}
	sizeXML struct {
		Unit  string `xml:"unit,attr"`
		Value int64  `xml:",chardata"`
	}
	osXML struct {
		Type    osTypeXML `xml:"type"`
		Kernel  string    `xml:"kernel"`
		Initrd  string    `xml:"initrd"`
		Cmdline string    `xml:"cmdline"`
	}
	osTypeXML struct {
		Arch    string `xml:"arch,attr"`
		Machine string `xml:"machine,attr"`
		Value   string `xml:",chardata"`
	}
	featuresXML struct {
		ACPI *struct{} `xml:"acpi"`
		APIC *struct{} `xml:"apic"`
	}
	cpuXML struct {
		Mode string `xml:"mode,attr"`
	}
	clockXML struct {
		Offset string `xml:"offset,attr"`
	}
	devicesXML struct {
		Disk       diskXML        `xml:"disk"`
		USB        controllerXML  `xml:"controller"`
		Interfaces []interfaceXML `xml:"interface"`
		Serial     serialXML      `xml:"serial"`
		Vsock      *vsockXML      `xml:"vsock"`
		RNG        rngXML         `xml:"rng"`
		Balloon    modelXML       `xml:"memballoon"`
	}
	diskXML struct {
		Type    string     `xml:"type,attr"`
		Device  string     `xml:"device,attr"`
		Driver  driverXML  `xml:"driver"`
		Source  sourceXML  `xml:"source"`
		Backing backingXML `xml:"backingStore"`
		Target  targetXML  `xml:"target"`
	}
	driverXML struct {
		Name    string `xml:"name,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Discard string `xml:"discard,attr,omitempty"`
	}
	sourceXML struct {
		File string `xml:"file,attr"`
	}
	backingXML struct {
		Type   string    `xml:"type,attr"`
		Format formatXML `xml:"format"`
		Source sourceXML `xml:"source"`
		End    *struct{} `xml:"backingStore"`
	}
	formatXML struct {
		Type string `xml:"type,attr"`
	}
	targetXML struct {
		Dev     string `xml:"dev,attr"`
		Bus     string `xml:"bus,attr,omitempty"`
		Managed string `xml:"managed,attr,omitempty"`
	}
	controllerXML struct {
		Type  string `xml:"type,attr"`
		Model string `xml:"model,attr"`
	}
	interfaceXML struct {
		Type   string     `xml:"type,attr"`
		MAC    addressXML `xml:"mac"`
		Target targetXML  `xml:"target"`
		Model  typeXML    `xml:"model"`
		Driver driverXML  `xml:"driver"`
		ROM    romXML     `xml:"rom"`
	}
	addressXML struct {
		Address string `xml:"address,attr"`
	}
	typeXML struct {
		Type string `xml:"type,attr"`
	}
	romXML struct {
		Enabled string `xml:"enabled,attr"`
	}
	serialXML struct {
		Type string `xml:"type,attr"`
		Log  logXML `xml:"log"`
	}
	logXML struct {
		File   string `xml:"file,attr"`
		Append string `xml:"append,attr"`
	}
	vsockXML struct {
		Model string `xml:"model,attr"`
		CID   cidXML `xml:"cid"`
	}
	cidXML struct {
		Auto    string `xml:"auto,attr"`
		Address uint32 `xml:"address,attr"`
	}
	rngXML struct {
		Model   string     `xml:"model,attr"`
		Backend backendXML `xml:"backend"`
	}
	backendXML struct {
		Model string `xml:"model,attr"`
		Value string `xml:",chardata"`
	}
	modelXML struct {
		Model string `xml:"model,attr"`
	}
)

// Encode writes a domain's definition: a q35 machine that boots kernel and initial file system from the image, with one disk, one
// virtio interface a port on a tap that exists, vsock, a console, and nothing more that a hostile guest could talk to.
func Encode(m Machine) ([]byte, error) {
	yes := &struct{}{}
	d := domainXML{
		Type: "kvm", Name: string(m.Name), UUID: identity(m.Name),
		Metadata: metadataXML{markXML{namespace, string(m.Name), layout, m.Spec.Image}},
		Memory:   sizeXML{"KiB", m.Memory >> 10},
		VCPU:     m.CPUs,
		OS: osXML{
			Type:   osTypeXML{"x86_64", "q35", "hvm"},
			Kernel: m.Image.Vmlinuz(), Initrd: m.Image.Initrd(), Cmdline: m.Image.Cmdline,
		},
		Features: featuresXML{ACPI: yes, APIC: yes},
		CPU:      cpuXML{"host-passthrough"},
		Clock:    clockXML{"utc"},
		// A machine that ends by itself is seen and started by the agent; one that reboots or panics starts again at once.
		Off: "destroy", Reboot: "restart", Crash: "restart",
		Devices: devicesXML{
			Disk: diskXML{
				Type: "file", Device: "disk",
				Driver:  driverXML{Name: "qemu", Type: "qcow2", Discard: "unmap"},
				Source:  sourceXML{filepath.Join(m.Dir, "disk.qcow2")},
				Backing: backingXML{Type: "file", Format: formatXML{"raw"}, Source: sourceXML{m.Image.Root()}, End: yes},
				Target:  targetXML{Dev: "vda", Bus: "virtio"},
			},
			USB:     controllerXML{"usb", "none"},
			Serial:  serialXML{"pty", logXML{filepath.Join(m.Dir, "console.log"), "on"}},
			RNG:     rngXML{"virtio", backendXML{"random", "/dev/urandom"}},
			Balloon: modelXML{"none"},
		},
	}
	if m.Emulated {
		d.Type, d.CPU.Mode = "qemu", "maximum"
	}
	for _, p := range m.Ports {
		d.Devices.Interfaces = append(d.Devices.Interfaces, interfaceXML{
			Type: "ethernet", MAC: addressXML{p.MAC.String()}, Target: targetXML{Dev: p.Name, Managed: "no"},
			Model: typeXML{"virtio"}, Driver: driverXML{Name: "vhost"}, ROM: romXML{"no"},
		})
	}
	if m.CID != 0 {
		d.Devices.Vsock = &vsockXML{"virtio", cidXML{"no", m.CID}}
	}
	text, err := xml.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode domain %s: %w", m.Name, err)
	}
	return append(text, '\n'), nil
}

// identity makes a UUID of a guest's name (RFC 9562, version 8), so that a definition written again is the same domain.
func identity(name policy.GuestName) string {
	sum := sha256.Sum256([]byte(namespace + " " + string(name)))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// readXML is what we read back of a definition, whatever else libvirt added to it.
type readXML struct {
	Name  string `xml:"name"`
	Guest *struct {
		Name   string `xml:"name,attr"`
		Layout int    `xml:"layout,attr"`
	} `xml:"metadata>guest"`
	Memory  sizeXML `xml:"memory"`
	VCPU    int     `xml:"vcpu"`
	Kernel  string  `xml:"os>kernel"`
	Devices struct {
		Interfaces []struct {
			MAC    addressXML `xml:"mac"`
			Target targetXML  `xml:"target"`
		} `xml:"interface"`
		Vsock struct {
			CID cidXML `xml:"cid"`
		} `xml:"vsock"`
	} `xml:"devices"`
}

// Decode reads what of a definition libvirt's XML holds. Ours is false for a domain without our mark; then only the name is set. Stale
// says that another layout of Encode wrote it.
func Decode(text []byte) (s guests.Spec, ours, stale bool, err error) {
	var d readXML
	if err := xml.Unmarshal(text, &d); err != nil {
		return guests.Spec{}, false, false, fmt.Errorf("decode domain: %w", err)
	}
	s = guests.Spec{Name: policy.GuestName(d.Name), Driver: policy.DriverKVM}
	if !marked(text) || d.Guest == nil || d.Guest.Name != d.Name {
		return s, false, false, nil
	}
	unit, ok := map[string]int64{"": 1 << 10, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "b": 1, "bytes": 1}[d.Memory.Unit]
	if !ok {
		return s, true, true, nil
	}
	s.Memory, s.CPUs, s.CID = d.Memory.Value*unit, d.VCPU, d.Devices.Vsock.CID.Address
	s.Image = filepath.Base(filepath.Dir(d.Kernel))
	for _, i := range d.Devices.Interfaces {
		p := guests.Port{Name: i.Target.Dev}
		if err := p.MAC.UnmarshalText([]byte(i.MAC.Address)); err != nil {
			return s, true, true, nil
		}
		s.Ports = append(s.Ports, p)
	}
	return s, true, d.Guest.Layout != layout, nil
}

// Console is the pseudoterminal of a running domain's first serial line, by the definition that it runs with; empty where it has none.
func Console(text []byte) (string, error) {
	var d struct {
		Serial []struct {
			Type   string `xml:"type,attr"`
			Source struct {
				Path string `xml:"path,attr"`
			} `xml:"source"`
		} `xml:"devices>serial"`
	}
	if err := xml.Unmarshal(text, &d); err != nil {
		return "", fmt.Errorf("decode domain: %w", err)
	}
	if len(d.Serial) == 0 || d.Serial[0].Type != "pty" {
		return "", nil
	}
	return d.Serial[0].Source.Path, nil
}

// marked looks for our element with its namespace: a domain of somebody else may have a <guest> of its own in its metadata.
func marked(text []byte) bool {
	d := xml.NewDecoder(strings.NewReader(string(text)))
	var path []string
	for {
		t, err := d.Token()
		if err != nil {
			return false
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(path) == 2 && path[1] == "metadata" && t.Name.Local == "guest" && t.Name.Space == namespace {
				return true
			}
			path = append(path, t.Name.Local)
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
}
