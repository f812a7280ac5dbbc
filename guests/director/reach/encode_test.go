package reach

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/bladenet/bladenet/policy"
)

var (
	own4 = netip.MustParseAddrPort("192.0.2.34:40001")
	own6 = netip.MustParseAddrPort("[2001:db8:113::2]:40002")
	vip4 = netip.MustParseAddrPort("203.0.113.10:443")
	vip6 = netip.MustParseAddrPort("[2001:db8:5::10]:443")

	directorMAC = policy.MAC{2, 0, 0, 0, 0, 1}
	serverMAC   = policy.MAC{2, 0, 0, 0, 0, 2}
)

// answer is the IP packet with which a server answers a frame, with flags of its own.
func answer(frame []byte, flags byte) []byte {
	packet := append([]byte{}, frame[ethernet:]...)
	at, addresses, size := header4, 12, 4
	if packet[0]>>4 == 6 {
		at, addresses, size = header6, 8, 16
	}
	swap(packet[addresses:addresses+size], packet[addresses+size:addresses+2*size])
	segment := packet[at:]
	swap(segment[:2], segment[2:4])
	copy(segment[8:], binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(segment[4:])+1))
	binary.BigEndian.PutUint32(segment[4:], 77)
	segment[13] = flags
	return packet
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

func TestFramesAreWhole(t *testing.T) {
	for _, p := range []Probe{
		{From: own4, To: vip4, Sequence: 0xffffffff},
		{From: own6, To: vip6, Sequence: 5},
		{From: own4, To: vip4, Sequence: 0xffffffff, Reset: true},
		{From: own6, To: vip6, Sequence: 5, Reset: true},
	} {
		frame := p.frame(directorMAC, serverMAC)
		if [6]byte(frame) != serverMAC || [6]byte(frame[6:]) != directorMAC {
			t.Errorf("%v: from and to the wrong MACs: % x", p, frame[:ethernet])
		}
		ip := frame[ethernet:]
		at, pseudo := header6, append([]byte{}, ip[8:40]...)
		if p.From.Addr().Is4() {
			if got := sum(0, ip[:header4]); got != 0xffff {
				t.Errorf("%v: the header's checksum leaves %#x", p, got)
			}
			at, pseudo = header4, append([]byte{}, ip[12:20]...)
		}
		if got := sum(sum(0, append(pseudo, 0, protoTCP, 0, tcp)), ip[at:]); got != 0xffff {
			t.Errorf("%v: the segment's checksum leaves %#x", p, got)
		}
		segment := ip[at:]
		sequence, flags := p.Sequence, byte(flagSYN)
		if p.Reset {
			sequence, flags = p.Sequence+1, flagRST
		}
		if got := binary.BigEndian.Uint32(segment[4:]); got != sequence || segment[13] != flags {
			t.Errorf("%v: sequence %d, flags %#x", p, got, segment[13])
		}
	}
}

// packets are answers and what only looks like them, as a server or anybody else may send them.
func packets() map[string]struct {
	packet []byte
	want   bool
} {
	type sample = struct {
		packet []byte
		want   bool
	}
	out := map[string]sample{}
	for family, p := range map[string]Probe{"v4 ": {From: own4, To: vip4, Sequence: 9}, "v6 ": {From: own6, To: vip6, Sequence: 9}} {
		frame := p.frame(directorMAC, serverMAC)
		good := answer(frame, flagSYN|flagACK)
		change := func(name string, want bool, do func(b []byte) []byte) {
			out[family+name] = sample{do(append([]byte{}, good...)), want}
		}
		at := len(good) - tcp
		out[family+"SYN-ACK"] = sample{good, true}
		out[family+"RST-ACK"] = sample{answer(frame, flagRST|flagACK), true}
		out[family+"SYN-ACK with ECE"] = sample{answer(frame, flagSYN|flagACK|0x40), true}
		for name, flags := range map[string]byte{"SYN": flagSYN, "ACK": flagACK, "RST": flagRST, "none": 0, "all": flagsKnown, "SYN-RST-ACK": flagSYN | flagRST | flagACK} {
			out[family+"flags "+name] = sample{answer(frame, flags), false}
		}
		change("with options", true, func(b []byte) []byte { b[at+12] = 10 << 4; return append(b, make([]byte, 20)...) })
		change("cut short", false, func(b []byte) []byte { return b[:len(b)-1] })
		change("empty", false, func([]byte) []byte { return nil })
		change("UDP", false, func(b []byte) []byte {
			if b[0] == 0x45 {
				b[9] = 17
			} else {
				b[6] = 17
			}
			return b
		})
		change("of version 5", false, func(b []byte) []byte { b[0] = 5<<4 | b[0]&15; return b })
	}
	fragment := answer(Probe{From: own4, To: vip4}.frame(directorMAC, serverMAC), flagSYN|flagACK)
	fragment[6] = 0x20
	out["v4 fragment"] = sample{fragment, false}
	options := answer(Probe{From: own4, To: vip4}.frame(directorMAC, serverMAC), flagSYN|flagACK)
	options[0] = 0x46
	out["v4 IP options"] = sample{append(options, 0, 0, 0, 0), false}
	return out
}

func TestOnlyAnswersAreDecoded(t *testing.T) {
	for name, p := range packets() {
		a, ok := Decode(p.packet)
		if ok != p.want {
			t.Errorf("%s: decoded %v, want %v", name, ok, p.want)
		}
		if !ok {
			continue
		}
		from, to := vip4, own4
		if a.From.Addr().Is6() {
			from, to = vip6, own6
		}
		if a.From != from || a.To != to || a.Sequence != 9 {
			t.Errorf("%s: %+v, want 9 from %s to %s", name, a, from, to)
		}
	}
}

// TestTheProgramHearsAnswersOnly runs what the kernel runs for each packet: it lets through what Decode takes, if it is for the socket's own
// address and port, and nothing else.
func TestTheProgramHearsAnswersOnly(t *testing.T) {
	run := func(at netip.AddrPort, packet []byte) bool {
		t.Helper()
		vm, err := bpf.NewVM(answers(at))
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(packet)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	for name, p := range packets() {
		own, other := own4, own6
		if name[:2] == "v6" {
			own, other = own6, own4
		}
		switch name[3:] {
		case "of version 5", "cut short": // the kernel knows the family, and gives Decode what there is
		default:
			if run(own, p.packet) != p.want {
				t.Errorf("%s: heard %v, want %v", name, !p.want, p.want)
			}
		}
		last := own.Addr().AsSlice()
		last[len(last)-1]++
		another, _ := netip.AddrFromSlice(last)
		for _, at := range []netip.AddrPort{netip.AddrPortFrom(own.Addr(), own.Port()+1), netip.AddrPortFrom(another, own.Port()), other} {
			if run(at, p.packet) {
				t.Errorf("%s: heard at %s", name, at)
			}
		}
	}
}

// TestTheProgramAsksForTheFamilyFirst runs the whole of it with the family that the kernel knows put in its place.
func TestTheProgramAsksForTheFamilyFirst(t *testing.T) {
	for name, p := range packets() {
		for _, family := range []uint32{typeIPv4, typeIPv6, 0x0806} {
			program := programOf([]netip.AddrPort{own4, own6})
			program[0] = bpf.LoadConstant{Dst: bpf.RegA, Val: family}
			vm, err := bpf.NewVM(program)
			if err != nil {
				t.Fatal(err)
			}
			n, err := vm.Run(p.packet)
			if err != nil {
				t.Fatal(err)
			}
			right := name[:2] == map[uint32]string{typeIPv4: "v4", typeIPv6: "v6"}[family]
			if n > 0 && !right || n == 0 && right && p.want {
				t.Errorf("%s as %#x: heard %v", name, family, n > 0)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, p := range packets() {
		f.Add(p.packet)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		a, ok := Decode(packet)
		if !ok {
			return
		}
		if len(packet) < header4+tcp || !a.From.Addr().IsValid() || a.From.Addr().Is4() != a.To.Addr().Is4() {
			t.Errorf("%+v of % x", a, packet)
		}
		vm, err := bpf.NewVM(answers(a.To))
		if err != nil {
			t.Fatal(err)
		}
		if n, err := vm.Run(packet); n == 0 || err != nil {
			t.Errorf("the program does not let %+v through: %v: % x", a, err, packet)
		}
	})
}
