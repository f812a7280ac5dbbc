package config

import (
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/policy"
)

// volumeKey is the key of a line that puts a folder of the host into a container.
const volumeKey = "mount.entry"

// encodeVolume writes a line of lxc.mount.entry, whose form is fstab's: a policy's paths need no escapes there. liblxc makes the path in
// the clone, and follows no link out of it.
func encodeVolume(c Container, v policy.Volume) string {
	options := "bind,create=dir,nodev,nosuid"
	if v.ReadOnly {
		options += ",ro"
	}
	at := VolumesPoint
	if c.Privileged {
		at = c.VolumesAt
	}
	return strings.Join([]string{filepath.Join(at, string(v.Name)), strings.TrimPrefix(v.Path, "/"), "none", options, "0", "0"}, " ")
}

// decodeVolume reads such a line back.
func decodeVolume(value string) policy.Volume {
	words := append(strings.Fields(value), "", "", "", "")
	return policy.Volume{
		Name: policy.VolumeName(filepath.Base(words[0])), Path: "/" + words[1],
		ReadOnly: strings.HasSuffix(words[3], ",ro"),
	}
}
