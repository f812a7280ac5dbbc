package fleet

import (
	"testing"

	"github.com/bladenet/bladenet/policy"
)

func TestDerive(t *testing.T) {
	for _, s := range []Size{{Services: 1, Guests: 2}, {Services: 10, Guests: 64}, {Services: 1000, Guests: 64}, {Services: 400, Guests: 256}} {
		b, err := Derive(s)
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		services := 0
		for _, x := range b.Services {
			services += len(x.Ports)
		}
		if services != s.Services || len(b.Guests) != s.Guests {
			t.Errorf("%+v: %d services, %d guests", s, services, len(b.Guests))
		}
		for _, g := range b.Guests {
			if g.Role == policy.RoleRealServer && g.Name == Server && len(g.Serves) != s.VIPs() {
				t.Errorf("%+v: %s serves %d of %d", s, g.Name, len(g.Serves), s.VIPs())
			}
		}
	}
}
