package channel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bladenet/bladenet/policy"
)

var addresses = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func frame(body string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func vip() netip.Addr { return netip.MustParseAddr("203.0.113.10") }

// status has every field set to something that survives.
func status() Status {
	return Status{
		Software: "bladenet 1", Guest: "dir-pub-l", Revision: "abc", Error: "no", Uptime: time.Minute, Checks: 3,
		VIPs: []VIPStatus{{Address: vip(), Up: true}, {Address: netip.MustParseAddr("2001:db8:5::10"), Reason: "why"}},
		Services: []ServiceStatus{{
			Service: "www", VIP: vip(), Protocol: policy.TCP, Port: 443, Up: true, Announced: true,
			Destinations: []DestinationStatus{{
				Guest: "www-l1", Address: netip.MustParseAddr("10.12.1.11"), Weight: 100, Up: true, Unheard: true, Reason: "r",
				Since: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
			}},
		}},
		Announce: AnnounceStatus{Protocol: "ospf", Daemons: []DaemonStatus{{Name: "zebra", Alive: true, Restarts: 2}}, Full4: 1, Full6: 1, Holds: []netip.Addr{vip()}, Error: "e"},
		Server:   &ServerStatus{Running: true, Restarts: 3, Ended: "exit status 1"},
		Omitted:  4,
	}
}

func TestRoundTrip(t *testing.T) {
	apply := Apply{
		Revision: "abc", Guest: "dir", Role: policy.RoleDirector,
		Inside: policy.Inside{Hostname: "dir", VIPs: []policy.VIP{{Address: vip(), Services: []policy.ServiceName{"www"}}}},
		Balancer: policy.Balancer{
			Services: []policy.VirtualService{{Service: "www", VIP: vip(), Protocol: "tcp", Port: 443, Destinations: []policy.Destination{}}},
			Checks:   []policy.Check{{ID: "x", Interval: time.Second}},
			Announce: policy.Announce{RouterID: vip(), OSPF: &policy.OSPF{Area: "0.0.0.0", Hello: time.Second}},
		},
	}
	for _, want := range []Request{{ID: 1, Hello: &Hello{Version: 1}}, {ID: 2, Apply: &apply}, {ID: 3, Status: &Query{}}, {ID: 1 << 60, Shutdown: &Shutdown{Reboot: true}}} {
		var b bytes.Buffer
		if err := EncodeRequest(&b, want); err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRequest(&b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, addresses); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	s := status()
	for _, want := range []Reply{{ID: 1, Hello: &Hello{Version: 1, Software: "x"}}, {ID: 2, Error: "no"}, {ID: 3, Status: &s}} {
		var b bytes.Buffer
		if err := EncodeReply(&b, want); err != nil {
			t.Fatal(err)
		}
		got, err := DecodeReply(&b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, addresses); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func TestDecodeReplyRefuses(t *testing.T) {
	many := func(one string, n int) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	svc := `{"service":"a","vip":"203.0.113.10","proto":"tcp","port":1`
	dest := `{"guest":"g","address":"10.0.0.1"}`
	for name, in := range map[string][]byte{
		"nothing":                {},
		"half a length":          {0, 0},
		"length 0":               {0, 0, 0, 0},
		"length above the bound": binary.BigEndian.AppendUint32(nil, MaxReply+1),
		"length of all ones":     {0xff, 0xff, 0xff, 0xff},
		"half a body":            frame(`{"id":1}`)[:8],
		"no JSON":                frame(`hello`),
		"two values":             frame(`{"id":1}{"id":2}`),
		"wrong type":             frame(`{"id":"1"}`),
		"negative id":            frame(`{"id":-1}`),
		"deep nesting":           frame(strings.Repeat("[", 20000)),
		"zone in an address":     frame(`{"status":{"vips":[{"address":"fe80::1%\u001b[31m"}]}}`),
		"mapped address":         frame(`{"status":{"vips":[{"address":"::ffff:10.0.0.1"}]}}`),
		"empty address":          frame(`{"status":{"vips":[{"address":""}]}}`),
		"unknown protocol":       frame(`{"status":{"services":[{"service":"a","vip":"203.0.113.10","proto":"\u001b","port":1}]}}`),
		"port above 65535":       frame(`{"status":{"services":[{"service":"a","vip":"203.0.113.10","proto":"tcp","port":65536}]}}`),
		"negative weight":        frame(`{"status":{"services":[` + svc + `,"destinations":[{"guest":"g","address":"10.0.0.1","weight":-1}]}]}}`),
		"weight above 65535":     frame(`{"status":{"services":[` + svc + `,"destinations":[{"guest":"g","address":"10.0.0.1","weight":65536}]}]}}`),
		"too many VIPs":          frame(`{"status":{"vips":[` + many(`{"address":"203.0.113.10"}`, maxVIPs+1) + `]}}`),
		"too many services":      frame(`{"status":{"services":[` + many(`{"vip":"::1","proto":"tcp"}`, maxServices+1) + `]}}`),
		"too many destinations":  frame(`{"status":{"services":[` + many(svc+`,"destinations":[`+many(dest, 1025)+`]}`, 4) + `]}}`),
		"too many daemons":       frame(`{"status":{"announce":{"daemons":[` + many(`{"name":"x"}`, maxDaemons+1) + `]}}}`),
		"announcing by magic":    frame(`{"status":{"announce":{"protocol":"magic"}}}`),
		"too many held VIPs":     frame(`{"status":{"announce":{"protocol":"vrrp","holds":[` + many(`"203.0.113.10"`, maxVIPs+1) + `]}}}`),
		"zone in a held VIP":     frame(`{"status":{"announce":{"holds":["fe80::1%\u001b[31m"]}}}`),
		"negative adjacencies":   frame(`{"status":{"announce":{"full4":-1}}}`),
		"negative restarts":      frame(`{"status":{"server":{"restarts":-1}}}`),
		"negative omitted":       frame(`{"status":{"omitted":-1}}`),
		"too many checks":        frame(`{"status":{"checks":99999999}}`),
	} {
		t.Run(name, func(t *testing.T) {
			rep, err := DecodeReply(bytes.NewReader(in))
			if err == nil {
				t.Fatalf("no error, but %+v", rep)
			}
			wantPrintable(t, err.Error())
		})
	}
}

func TestDecodeRequestRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"no message":    `{"id":1}`,
		"two messages":  `{"id":1,"hello":{},"status":{}}`,
		"unknown":       `{"id":1,"launch":{}}`,
		"not an object": `[]`,
	} {
		t.Run(name, func(t *testing.T) {
			if req, err := DecodeRequest(bytes.NewReader(frame(in))); err == nil {
				t.Errorf("no error, but %+v", req)
			}
		})
	}
	if _, err := DecodeRequest(bytes.NewReader(binary.BigEndian.AppendUint32(nil, MaxRequest+1))); err == nil {
		t.Error("no error for a length above the bound")
	}
}

func wantPrintable(t *testing.T, text string) {
	t.Helper()
	if len(text) > 600 {
		t.Errorf("%d bytes of text", len(text))
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			t.Fatalf("byte %#x in %q", text[i], text)
		}
	}
}

func TestReplyIsPrintable(t *testing.T) {
	nasty := "\x1b]0;owned\x07\r\n" + strings.Repeat("ä", 1000)
	s := status()
	s.Software, s.Guest, s.Revision, s.Error = nasty, policy.GuestName(nasty), nasty, nasty
	s.VIPs[0].Reason = nasty
	s.Services[0].Service = policy.ServiceName(nasty)
	s.Services[0].Destinations[0].Guest, s.Services[0].Destinations[0].Reason = policy.GuestName(nasty), nasty
	s.Announce.Error, s.Announce.Daemons[0].Name, s.Server.Ended = nasty, nasty, nasty
	s.Uptime = -1
	s.Services[0].Destinations[0].Since = time.Date(1, 1, 1, 0, 0, 0, 0, time.FixedZone("x", 3600))
	body, err := json.Marshal(Reply{Status: &s, Error: nasty, Hello: &Hello{Software: nasty}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeReply(bytes.NewReader(frame(string(body))))
	if err != nil {
		t.Fatal(err)
	}
	checkReply(t, got)
}

// checkReply holds what every reply that was decoded without an error must keep.
func checkReply(t *testing.T, r Reply) {
	t.Helper()
	text := func(what, s string, limit int) {
		if len(s) > limit {
			t.Errorf("%s: %d bytes", what, len(s))
		}
		wantPrintable(t, s)
	}
	text("error", r.Error, maxText)
	if r.Hello != nil {
		text("software", r.Hello.Software, maxName)
	}
	if r.Status == nil {
		return
	}
	s := *r.Status
	text("software", s.Software, maxName)
	text("guest", string(s.Guest), maxName)
	text("revision", s.Revision, maxText)
	text("error", s.Error, maxText)
	if s.Uptime < 0 {
		t.Errorf("uptime %s", s.Uptime)
	}
	for _, v := range s.VIPs {
		text("vip", v.Address.String(), 39)
		text("vip reason", v.Reason, maxText)
	}
	for _, svc := range s.Services {
		text("service", string(svc.Service), maxName)
		text("vip", svc.VIP.String(), 39)
		for _, d := range svc.Destinations {
			text("guest", string(d.Guest), maxName)
			text("address", d.Address.String(), 39)
			text("reason", d.Reason, maxText)
			text("since", d.Since.Format(time.RFC3339), 40)
			if d.Weight < 0 || d.Weight > 65535 || d.Active < 0 || d.Since.Location() != time.UTC {
				t.Errorf("destination %+v", d)
			}
		}
	}
	text("announce error", s.Announce.Error, maxText)
	if s.Server != nil {
		text("end of the service", s.Server.Ended, maxText)
	}
	for _, d := range s.Announce.Daemons {
		text("daemon", d.Name, maxName)
	}
}

// TestEncodeReplyFits holds that a director of any size can say what is wrong with it.
func TestEncodeReplyFits(t *testing.T) {
	for _, services := range []int{10, 1000, 4000} {
		t.Run(fmt.Sprint(services), func(t *testing.T) {
			var s Status
			for i := range services {
				svc := ServiceStatus{Service: "www", VIP: vip(), Protocol: "tcp", Port: uint16(i), Up: true, Announced: i != 7}
				for j := range 10 {
					svc.Destinations = append(svc.Destinations, DestinationStatus{Guest: "www-l1", Address: vip(), Weight: 100, Up: i*j != 9*3, Since: time.Now()})
				}
				s.Services = append(s.Services, svc)
			}
			var b bytes.Buffer
			if err := EncodeReply(&b, Reply{ID: 1, Status: &s}); err != nil {
				t.Fatal(err)
			}
			rep, err := DecodeReply(&b)
			if err != nil {
				t.Fatal(err)
			}
			left, down := 0, 0
			for _, svc := range rep.Status.Services {
				for _, d := range svc.Destinations {
					left++
					if !d.Up {
						down++
					}
				}
			}
			if left+rep.Status.Omitted != services*10 {
				t.Errorf("%d destinations and %d omitted, want %d", left, rep.Status.Omitted, services*10)
			}
			if services == 1000 && down == 0 {
				t.Error("the destinations that are down were left out")
			}
			if len(s.Services[0].Destinations) != 10 {
				t.Error("the caller's status was changed")
			}
		})
	}
}

func TestEncodeRequestBound(t *testing.T) {
	err := EncodeRequest(io.Discard, Request{Apply: &Apply{Revision: strings.Repeat("x", MaxRequest)}})
	if !errors.Is(err, errTooLong) {
		t.Errorf("error %v", err)
	}
}

func FuzzDecodeReply(f *testing.F) {
	s := status()
	body, err := json.Marshal(Reply{ID: 1, Status: &s})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame(string(body)))
	f.Add(frame(`{"id":1,"hello":{"version":1}}`))
	f.Add(frame(`{"status":{"vips":[{"address":"fe80::1%x"}]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		rep, err := DecodeReply(bytes.NewReader(in))
		if err != nil {
			wantPrintable(t, err.Error())
			return
		}
		checkReply(t, rep)
		var b bytes.Buffer
		if err := EncodeReply(&b, rep); err != nil {
			return // decoding may lengthen what it reads; a guest's own reply is bounded before
		}
		again, err := DecodeReply(&b)
		if err != nil {
			t.Fatalf("decode what was decoded: %v", err)
		}
		if diff := cmp.Diff(rep, again, addresses, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-once +twice)\n%s", diff)
		}
	})
}

func FuzzDecodeRequest(f *testing.F) {
	var b bytes.Buffer
	if err := EncodeRequest(&b, Request{ID: 1, Apply: &Apply{Revision: "r", Balancer: policy.Balancer{Announce: policy.Announce{BGP: &policy.BGP{AS: 1}}}}}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(frame(`{"id":1,"status":{}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		req, err := DecodeRequest(bytes.NewReader(in))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := EncodeRequest(&b, req); err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRequest(&b); err != nil {
			t.Fatalf("decode what was decoded: %v", err)
		}
	})
}
