package lxc

import (
	"os"
	"strings"
)

// ownProfile comes with Debian's liblxc, for containers with a control group namespace. It refuses mounts and most of /proc and /sys.
const ownProfile = "lxc-container-default-cgns"

// unconfined is what liblxc calls having no profile.
const unconfined = "unconfined"

// profiles is the kernel's list of those that are loaded.
const profiles = "/sys/kernel/security/apparmor/profiles"

// loadedProfile is the profile for containers by the kernel's list of what is loaded: one line for each, its name and its mode.
func loadedProfile(list string) string {
	text, err := os.ReadFile(list)
	if err != nil {
		return unconfined // no AppArmor here
	}
	for line := range strings.Lines(string(text)) {
		if name, _, _ := strings.Cut(line, " "); name == ownProfile {
			return ownProfile
		}
	}
	return unconfined
}
