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
