//go:build kernel

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

const spareEntry = `realservers:
  www-9: {blade: lame-l1, image: web, serves: {www: {}}, spare: true, eth0: {network: pub-return, addresses: [198.51.100.9, "2001:db8:130::9"]}, eth1: {network: pub-service, addresses: [10.12.0.9, "2001:db8:120::9"]}}
`

// spareNodeFillsIn: a spare node is off while the others are well, answers when none of them may, and is left alone when they may again.
func spareNodeFillsIn(t *testing.T, _ *blade) {
	path := filepath.Join(folder, "guest-www-9.yaml")
	if err := os.WriteFile(path, []byte(spareEntry), 0o644); err != nil {
		t.Fatal(err)
	}
	ctl(t, "apply")
	converged(t)
	if g := guestNamed(t, "www-9"); g.State != "stopped" || !strings.Contains(g.Held, "spare") {
		t.Errorf("www-9 is %+v, want stopped, because it is a spare one", g)
	}
	for _, name := range []string{"www-1", "www-2"} {
		ctl(t, "drain", name, "--force", "--wait", "0")
	}
	for _, vip := range []string{vip4, vip6} {
		answeredBy(t, vip, "www-9")
	}
	if out := ctl(t, "events"); !strings.Contains(out, "a spare one is wanted: www has no quorum without it") {
		t.Errorf("the journal does not say why www-9 started:\n%s", lastLines(out, 20))
	}
	for _, name := range []string{"www-1", "www-2"} {
		ctl(t, "undrain", name)
	}
	for _, vip := range []string{vip4, vip6} {
		answeredBy(t, vip, "www-1", "www-2")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	ctl(t, "apply")
	converged(t)
}

// answeredBy waits until these nodes answer at a VIP, all of them and no other.
func answeredBy(t *testing.T, vip string, names ...string) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprintf("%s is answered by %v", vip, names), func() error {
		if err := client(t.Context(), "curl", "-g", "-s", "-m", "2", "-o", "/dev/null", "http://"+bracket(vip)+"/").Run(); err != nil {
			return err // before ten that wait long
		}
		got, err := tryAsking(t, vip, 10)
		if err != nil {
			return err
		}
		for _, name := range names {
			if got[name] == 0 {
				return fmt.Errorf("answered by %v", got)
			}
		}
		if len(got) != len(names) {
			return fmt.Errorf("answered by %v", got)
		}
		return nil
	})
}

func guestNamed(t *testing.T, name policy.GuestName) api.Guest {
	t.Helper()
	for _, g := range status(t).Guests {
		if g.Name == name {
			return g
		}
	}
	t.Fatalf("status does not know %s", name)
	return api.Guest{}
}
