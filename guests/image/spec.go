package image

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// DefaultStore is where a blade keeps its images.
const DefaultStore = "/var/lib/bladenet/images"

// Image is what image.json says of an image in the store.
type Image struct {
	ID      string        `json:"id"`     // name-digest: first 12 hexadecimal digits over recipe, helper binary and installed packages
	Name    string        `json:"name"`   // as policies write it
	Kind    policy.Driver `json:"kind"`   // lxc: rootfs/; kvm: vmlinuz, initrd, root.ext4
	Recipe  string        `json:"recipe"` // digest of the inputs: recipe and helper binary
	Created time.Time     `json:"created"`
	Size    int64         `json:"size"` // bytes on disk

	Command []string `json:"command,omitempty"` // the service's argument vector: init of a container, none in a director
	Halt    string   `json:"halt,omitempty"`    // signal that ends Command gracefully, SIGTERM when empty

	// Containers.
	Capabilities []string `json:"capabilities,omitempty"` // kept in addition to the driver's own short list

	// Machines.
	Cmdline  string   `json:"cmdline,omitempty"` // kernel command line
	Kernel   string   `json:"kernel,omitempty"`  // kernel release
	DiskSize int64    `json:"disk_size,omitempty"`
	Packages []string `json:"packages,omitempty"` // name=version, sorted

	dir string
}

// Rootfs is the directory tree of a container image.
func (i Image) Rootfs() string { return filepath.Join(i.dir, "rootfs") }

// Root is the ext4 file of a machine image.
func (i Image) Root() string { return filepath.Join(i.dir, "root.ext4") }

// Vmlinuz is the kernel of a machine image.
func (i Image) Vmlinuz() string { return filepath.Join(i.dir, "vmlinuz") }

// Initrd is the initial file system of a machine image.
func (i Image) Initrd() string { return filepath.Join(i.dir, "initrd") }

// Dir is the image's folder in the store.
func (i Image) Dir() string { return i.dir }

// What names and digests are made of, and how long they are.
const (
	digits       = "0123456789abcdef"
	letters      = "abcdefghijklmnopqrstuvwxyz0123456789-"
	longestName  = 40
	digestLength = 12
)

// isName says whether a text is an image's name: letters, digits and hyphens, but no hyphen at either end.
func isName(s string) bool {
	return s != "" && len(s) <= longestName && strings.Trim(s, letters) == "" && s[0] != '-' && s[len(s)-1] != '-'
}

// splitID takes an identity apart; a name that does not look like one is an error, so that no path is ever made of it.
func splitID(id string) (name, digest string, err error) {
	if i := strings.LastIndexByte(id, '-'); i > 0 {
		name, digest = id[:i], id[i+1:]
	}
	if !isName(name) || len(digest) != digestLength || strings.Trim(digest, digits) != "" {
		return "", "", fmt.Errorf("image %q: not an image identity", id)
	}
	return name, digest, nil
}
