package doctor

import (
	"context"
	"fmt"
	"math/bits"
	"strconv"

	"github.com/bladenet/bladenet/policy"
)

// lasting says how a value is made to stay.
func lasting(key, value string) string {
	return fmt.Sprintf("sysctl -w %s=%s, and a line in a file of /etc/sysctl.d", key, value)
}

// sysctls are limits that many containers reach: each has watches and keys of its own.
func sysctls(_ context.Context, h Host) []finding {
	const file = "proc/sys/fs/inotify/max_user_instances"
	need := 128 + 8*h.guests(policy.DriverLXC)
	have, ok := h.number(file)
	if !ok || have >= need {
		return nil
	}
	value := strconv.Itoa(upTo(need))
	f := doubtful(fmt.Sprintf("fs.inotify.max_user_instances is %d, which %d containers can use up", have, h.guests(policy.DriverLXC)),
		lasting("fs.inotify.max_user_instances", value))
	f.fix = h.write(file, value)
	return []finding{f}
}

// upTo is the next power of two.
func upTo(n int) int { return 1 << bits.Len(uint(n-1)) }

// neighbours compares the size of the neighbour tables, which all network namespaces of the host share, with what its containers can
// come to know: each speaks with every director on its service network and with its routers.
func neighbours(_ context.Context, h Host) []finding {
	need := 0
	for _, g := range h.Blade.Guests {
		if g.Driver != policy.DriverLXC {
			continue
		}
		for _, p := range g.Ports {
			for _, peer := range h.Blade.Peers {
				if peer.Network == p.Network {
					need++
				}
			}
		}
	}
	need = 1024 + need
	var out []finding
	for _, family := range []string{"ipv4", "ipv6"} {
		file := "proc/sys/net/" + family + "/neigh/default/gc_thresh"
		have, ok := h.number(file + "3")
		if !ok || have >= need {
			continue
		}
		size := upTo(need)
		f := doubtful(fmt.Sprintf("the %s neighbour table takes %d entries, the blade's containers can know %d", family, have, need),
			lasting("net."+family+".neigh.default.gc_thresh3", strconv.Itoa(size))+"; half of it in gc_thresh2, an eighth in gc_thresh1")
		f.fix = func() error {
			for i, value := range []int{size, size / 2, size / 8} { // from 3 down, so that they are in order at each moment
				if err := h.write(file+strconv.Itoa(3-i), strconv.Itoa(value))(); err != nil {
					return err
				}
			}
			return nil
		}
		out = append(out, f)
	}
	return out
}

// Limits of the connection table. VIP traffic is not in it, administration and the guests' own connections are.
const (
	conntrackLeast = 65536
	conntrackGood  = 262144
)

func conntrack(_ context.Context, h Host) []finding {
	const folder = "proc/sys/net/netfilter/"
	most, ok := h.number(folder + "nf_conntrack_max")
	if !ok {
		return nil // not loaded yet; the filter loads it
	}
	raise := h.write(folder+"nf_conntrack_max", strconv.Itoa(conntrackGood))
	remedy := lasting("net.netfilter.nf_conntrack_max", strconv.Itoa(conntrackGood))
	count, _ := h.number(folder + "nf_conntrack_count")
	switch {
	case count*10 > most*8:
		f := wrong(fmt.Sprintf("%d of %d connections are tracked: new ones will be dropped", count, most), remedy)
		if most < conntrackGood {
			f.fix = raise
		}
		return []finding{f}
	case most < conntrackLeast:
		f := doubtful(fmt.Sprintf("only %d connections can be tracked", most), remedy)
		f.fix = raise
		return []finding{f}
	}
	return nil
}

// bridgeNetfilter looks whether frames between guests also pass the host's own IP tables: they would be tracked there, VIPs too.
func bridgeNetfilter(_ context.Context, h Host) []finding {
	var out []finding
	for _, name := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables"} {
		file := "proc/sys/net/bridge/" + name
		if n, ok := h.number(file); !ok || n == 0 {
			continue
		}
		f := wrong(fmt.Sprintf("net.bridge.%s is on: guests' frames pass the host's IP tables and are tracked there", name), lasting("net.bridge."+name, "0"))
		if h.exists("sys/class/net/docker0") || h.exists("sys/class/net/cni0") {
			f.Remedy += "; Docker and Kubernetes want it on: they do not belong on a blade"
		} else {
			f.fix = h.write(file, "0")
		}
		out = append(out, f)
	}
	return out
}
