package traffic

import (
	"net"
	"net/netip"
	"testing"
)

func flow(vip, client string, answer bool) Flow {
	return Flow{
		Source: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Destination: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		Client: netip.MustParseAddr(client), VIP: netip.MustParseAddr(vip), VIPs: 3, Port: 80, Ports: 2, Answer: answer,
	}
}

func TestLayout(t *testing.T) {
	for _, c := range []struct {
		flow Flow
		want layout
	}{
		{flow("10.0.0.1", "198.18.0.0", false), layout{client: 28, vip: 32, clientPort: 34, vipPort: 36, length: 54}},
		{flow("10.0.0.1", "198.18.0.0", true), layout{client: 32, vip: 28, clientPort: 36, vipPort: 34, length: 54}},
		{flow("2001:db8::1", "2001:db8::", false), layout{client: 36, vip: 52, clientPort: 54, vipPort: 56, length: 74}},
		{flow("2001:db8::1", "2001:db8::", true), layout{client: 52, vip: 36, clientPort: 56, vipPort: 54, length: 74}},
	} {
		if got := c.flow.layout(); got != c.want {
			t.Errorf("%v answer %v: %+v, want %+v", c.flow.VIP, c.flow.Answer, got, c.want)
		}
		if got := len(c.flow.frame()); got != c.want.length {
			t.Errorf("%v: frame of %d bytes, want %d", c.flow.VIP, got, c.want.length)
		}
	}
}

// TestHeaderSum checks the sum against RFC 1071's way over a header whose changing parts are filled in.
func TestHeaderSum(t *testing.T) {
	f := flow("10.200.0.0", "198.18.0.0", false)
	frame := f.frame()
	var want uint32
	for i := 0; i < 20; i += 2 {
		want += uint32(frame[14+i])<<8 | uint32(frame[15+i])
	}
	for want > 0xffff {
		want = want&0xffff + want>>16
	}
	got := headerSum(frame)
	for got > 0xffff {
		got = got&0xffff + got>>16
	}
	if swapped := got&0xff<<8 | got>>8; got != want && swapped != want {
		t.Errorf("sum %#x, want %#x in one of both byte orders", got, want)
	}
}
