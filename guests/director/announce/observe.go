package announce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/guests/inside"
)

// Observe says how the daemons and their neighbours are. What a daemon does not answer is counted as no neighbour, with the
// error in the status.
func (s *Supervisor) Observe(ctx context.Context) channel.AnnounceStatus {
	s.mu.Lock()
	want, err := s.want, s.err
	status := channel.AnnounceStatus{Protocol: want.Protocol()}
	ready := true
	for _, name := range want.Daemons() {
		d := channel.DaemonStatus{Name: name}
		if r := s.running[name]; r != nil {
			d.Alive, d.Restarts = r.alive.Load(), int(r.restarts.Load())
		}
		ready = ready && d.Alive
		status.Daemons = append(status.Daemons, d)
	}
	s.mu.Unlock()
	errs := []error{err}
	if want.Announce.VRRP != nil {
		holds, err := inside.Floating(ctx, "")
		status.Holds, errs = holds, append(errs, err)
	}
	if ready {
		var err4, err6 error
		switch status.Protocol {
		case "ospf":
			status.Full4, err4 = s.count(ctx, "ospfd", "show ip ospf neighbor json", fullOSPF)
			status.Full6, err6 = s.count(ctx, "ospf6d", "show ipv6 ospf6 neighbor json", fullOSPF6)
		case "bgp":
			status.Full4, err4 = s.count(ctx, "bgpd", "show bgp ipv4 unicast summary json", establishedBGP)
			status.Full6, err6 = s.count(ctx, "bgpd", "show bgp ipv6 unicast summary json", establishedBGP)
		}
		errs = append(errs, err4, err6)
	}
	if err := errors.Join(errs...); err != nil {
		status.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return status
}

func (s *Supervisor) count(ctx context.Context, daemon, command string, decode func([]byte) (int, error)) (int, error) {
	answer, err := ask(ctx, filepath.Join(s.cfg.Run, daemon+".vty"), command)
	if err != nil {
		return 0, err
	}
	n, err := decode(answer)
	if err != nil {
		return 0, fmt.Errorf("read answer of %s: %w", daemon, err)
	}
	return n, nil
}

// fullOSPF counts full adjacencies in ospfd's answer. Neighbours come by router identifier, each with one entry an interface.
func fullOSPF(answer []byte) (int, error) {
	var a struct {
		Neighbors map[string][]struct {
			State    string `json:"state"`
			NbrState string `json:"nbrState"`
		} `json:"neighbors"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, err
	}
	n := 0
	for _, entries := range a.Neighbors {
		for _, e := range entries {
			if strings.HasPrefix(e.NbrState+e.State, "Full") {
				n++
			}
		}
	}
	return n, nil
}

func fullOSPF6(answer []byte) (int, error) {
	var a struct {
		Neighbors []struct {
			State string `json:"state"`
		} `json:"neighbors"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, err
	}
	n := 0
	for _, e := range a.Neighbors {
		if strings.HasPrefix(e.State, "Full") {
			n++
		}
	}
	return n, nil
}

func establishedBGP(answer []byte) (int, error) {
	var a struct {
		Peers map[string]struct {
			State string `json:"state"`
		} `json:"peers"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, err
	}
	n := 0
	for _, p := range a.Peers {
		if p.State == "Established" {
			n++
		}
	}
	return n, nil
}
