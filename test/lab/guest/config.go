package guest

import (
	"encoding/json"
	"fmt"
	"os"
)

// Config is what the host tells a machine at boot. It lies in the initramfs.
type Config struct {
	Token    string   `json:"token"` // what a request must carry
	Hostname string   `json:"hostname"`
	Blade    string   `json:"blade"`   // which blade a command goes to that names none
	MAC      string   `json:"mac"`     // of the network card that carries requests
	Address  string   `json:"address"` // of that card, with prefix length
	Port     int      `json:"port"`    // where the agent listens
	Shares   []Share  `json:"shares"`
	Modules  []string `json:"modules"` // loaded at boot; one that does not fit the processor is left out
	Mounts   string   `json:"mounts"`  // a shell's script that mounts what is in the shares
	Systemd  bool     `json:"systemd"` // becomes the first process; the agent is its child
}

// Share is a folder of the host.
type Share struct {
	Tag  string `json:"tag"`  // virtiofs tag
	Path string `json:"path"` // mount point
}

// Places inside the machine.
const (
	Folder     = "/run/lab"            // the lab's own files
	Binary     = Folder + "/lab"       // this program
	ConfigFile = Folder + "/lab.json"  // Config
	Spaces     = Folder + "/ns"        // NAME.mnt, NAME.uts: namespaces of a blade, the router, the client
	netSpaces  = "/run/netns"          // NAME: their network namespaces, where iproute2 looks
	control    = "lab-control"         // network namespace of the agent's card
	guestNets  = "/run/bladenet/netns" // GUEST: where a blade's agent keeps guests' network namespaces
	Blades     = "/var/lib/lab"        // NAME: what each of several blades has of its own, bound over the machine's
)

func readConfig(path string) (Config, error) {
	var c Config
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}
