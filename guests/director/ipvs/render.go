package ipvs

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

// Render writes t as `ipvsadm -S -n` would, one line for each service and destination, in t's order. `ipvsadm -R` reads it.
func Render(w io.Writer, t Table) error {
	for _, s := range t.Services {
		if _, err := fmt.Fprintf(w, "-A %s -s %s%s\n", serviceText(s.Key), s.Scheduler, optionText(s)); err != nil {
			return err
		}
		for _, d := range s.Destinations {
			if _, err := fmt.Fprintf(w, "-a %s -r %s %s -w %d\n", serviceText(s.Key), d.endpoint(), methodText(d.Method), d.Weight); err != nil {
				return err
			}
		}
	}
	return nil
}

func serviceText(k Key) string {
	switch {
	case k.Mark != 0 && k.IPv6:
		return fmt.Sprintf("-f %d -6", k.Mark)
	case k.Mark != 0:
		return fmt.Sprintf("-f %d", k.Mark)
	case k.Protocol == 17:
		return "-u " + netip.AddrPortFrom(k.Address, k.Port).String()
	case k.Protocol == 132:
		return "--sctp-service " + netip.AddrPortFrom(k.Address, k.Port).String()
	}
	return "-t " + netip.AddrPortFrom(k.Address, k.Port).String()
}

func optionText(s Service) string {
	var b strings.Builder
	if s.Flags&FlagPersistent != 0 {
		fmt.Fprintf(&b, " -p %d", int(s.Persistence/time.Second))
		if s.Netmask != wholeAddress(s.IPv6) {
			fmt.Fprintf(&b, " -M %s", maskText(s))
		}
	}
	if s.Flags&FlagOnePacket != 0 {
		b.WriteString(" -o")
	}
	if text := flagText(s); text != "" {
		b.WriteString(" -b " + text)
	}
	return b.String()
}

func maskText(s Service) string {
	if s.IPv6 {
		return fmt.Sprint(s.Netmask)
	}
	// The kernel keeps the mask in network byte order.
	return netip.AddrFrom4([4]byte{byte(s.Netmask), byte(s.Netmask >> 8), byte(s.Netmask >> 16), byte(s.Netmask >> 24)}).String()
}

// flagText names the scheduler's bits as ipvsadm does.
func flagText(s Service) string {
	var names []string
	named := s.Scheduler == "sh" || s.Scheduler == "mh"
	for i, bit := range []Flags{FlagFallback, FlagPort, flagScheduler3} {
		switch {
		case s.Flags&bit == 0:
		case named && bit == FlagFallback:
			names = append(names, s.Scheduler+"-fallback")
		case named && bit == FlagPort:
			names = append(names, s.Scheduler+"-port")
		default:
			names = append(names, fmt.Sprintf("flag-%d", i+1))
		}
	}
	return strings.Join(names, ",")
}

func methodText(m Method) string {
	switch m {
	case Masquerade:
		return "-m"
	case Tunnel:
		return "-i"
	}
	return "-g"
}
