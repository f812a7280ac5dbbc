package announce

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLiveChange(t *testing.T) {
	a := netip.MustParseAddr
	base := specs()["ospf-bfd"]
	with := func(change func(*Spec)) Spec {
		s := base
		s.VIPs = slices.Clone(s.VIPs)
		change(&s)
		return s
	}
	more := with(func(s *Spec) { s.VIPs = append(s.VIPs, a("203.0.113.11"), a("2001:db8:5::11")) })
	for name, c := range map[string]struct {
		after  Spec
		daemon string
		want   []string // nil: only a restart will do
	}{
		"a VIP comes": {more, "ospfd", []string{"enable", "configure terminal", "ip prefix-list bladenet-vips4 seq 3405803787 permit 203.0.113.11/32", "end"}},
		"its sister":  {more, "ospf6d", []string{"enable", "configure terminal", "ipv6 prefix-list bladenet-vips6 seq 3739629203 permit 2001:db8:5::11/128", "end"}},
		"a VIP goes": {with(func(s *Spec) { s.VIPs = s.VIPs[1:2] }), "ospfd", []string{
			"enable", "configure terminal", "no ip prefix-list bladenet-vips4 seq 3405803786 permit 203.0.113.10/32", "no ip prefix-list bladenet-vips4 seq 3405803788 permit 203.0.113.12/32", "end",
		}},
		"another area": {with(func(s *Spec) { o := *s.Announce.OSPF; o.Area = "0.0.0.9"; s.Announce.OSPF = &o }), "ospfd", nil},
		"another name": {with(func(s *Spec) { s.Hostname = "x"; s.VIPs = nil }), "ospfd", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := liveChange(Render(base)[c.daemon], Render(c.after)[c.daemon])
			if ok != (c.want != nil) {
				t.Fatalf("live: %v", ok)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestSequencesAreApart holds that addresses whose numbers would be the same get different ones, and that the last number is
// the refusal's alone.
func TestSequencesAreApart(t *testing.T) {
	taken := map[uint32]bool{}
	seen := map[uint32]bool{}
	for _, s := range []string{"0.0.0.0", "0.0.0.1", "255.255.255.255", "0.0.0.2", "255.255.255.254"} {
		n := sequence(netip.MustParseAddr(s), taken)
		if n == 0 || n == lastSequence || seen[n] {
			t.Errorf("%s: %d", s, n)
		}
		seen[n] = true
	}
}

func TestReadAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		want   string
		status byte
		fails  bool
	}{
		"empty":         {"\x00\x00\x00\x00", "", 0, false},
		"text":          {"{}\n\x00\x00\x00\x00", "{}\n", 0, false},
		"refused":       {"% no\x00\x00\x00\x02", "% no", 2, false},
		"nothing":       {"", "", 0, true},
		"no status":     {"{}\x00\x00\x00", "", 0, true},
		"never an end":  {strings.Repeat("x", maxAnswer+5000), "", 0, true},
		"more after it": {"a\x00\x00\x00\x01b", "a", 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, status, err := readAnswer(strings.NewReader(c.in))
			if (err != nil) != c.fails || string(got) != c.want || status != c.status {
				t.Errorf("%q, %d, %v", got, status, err)
			}
		})
	}
}

// TestCounts holds what is read of answers as FRR 8.4 gives them, and that others are errors or nothing.
func TestCounts(t *testing.T) {
	for name, c := range map[string]struct {
		count func([]byte) (int, error)
		in    string
		want  int
		fails bool
	}{
		"ospf, full":        {fullOSPF, `{"neighbors":{"192.0.2.1":[{"nbrState":"Full/DR","priority":1}],"192.0.2.9":[{"nbrState":"2-Way/DROther"}]}}`, 1, false},
		"ospf, older field": {fullOSPF, `{"neighbors":{"192.0.2.1":[{"state":"Full/Backup"}]}}`, 1, false},
		"ospf, none":        {fullOSPF, `{"neighbors":{}}`, 0, false},
		"ospf, garbage":     {fullOSPF, `% OSPF not running`, 0, true},
		"ospf6, full":       {fullOSPF6, `{"neighbors":[{"neighborId":"192.0.2.1","state":"Full"},{"state":"Init"}]}`, 1, false},
		"ospf6, garbage":    {fullOSPF6, ``, 0, true},
		"bgp, established":  {establishedBGP, `{"routerId":"1","peers":{"192.0.2.1":{"state":"Established"},"192.0.2.3":{"state":"Active"}}}`, 1, false},
		"bgp, none":         {establishedBGP, `{}`, 0, false},
		"bgp, garbage":      {establishedBGP, `[`, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.count([]byte(c.in))
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("{}\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, _, err := readAnswer(bytes.NewReader(in))
		if err == nil && bytes.Contains(got, []byte{0, 0, 0}) {
			t.Errorf("%q has the end in it", got)
		}
		for _, count := range []func([]byte) (int, error){fullOSPF, fullOSPF6, establishedBGP} {
			if n, _ := count(in); n < 0 {
				t.Errorf("%d neighbours", n)
			}
		}
	})
}
