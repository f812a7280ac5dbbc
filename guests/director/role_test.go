package director

import (
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bladenet/bladenet/policy"
)

// Its image is a director's: a real server's state is not taken, and what was there stays.
func TestARealServersStateIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{down: map[string]bool{}}
		c, _ := controller(t, w, Store{filepath.Join(t.TempDir(), "state.json")})
		apply(t, c, state("one"))
		other := state("two")
		other.Role = policy.RoleRealServer
		s, err := c.Apply(t.Context(), other)
		if err != nil || !strings.Contains(s.Error, "runs no service") || s.Revision != "one" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}
