package hostagent

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestATouchedFilterComesFirst walks the stages in the written order, but for a repair of the filter.
func TestATouchedFilterComesFirst(t *testing.T) {
	dir, w := t.TempDir(), &world{}
	writePolicy(t, dir)
	a := trialAgent(t, dir, w)
	if err := a.adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	var walked []string
	a.order = nil
	for _, name := range []string{"guests", "links", "filter", "inside"} {
		a.order = append(a.order, stage{name, func(context.Context, *pass) (work, error) {
			walked = append(walked, name)
			return work{}, nil
		}})
	}
	written, urgent := []string{"guests", "links", "filter", "inside"}, []string{"filter", "guests", "links", "filter", "inside"}
	for _, c := range []struct {
		what string
		do   func()
		want []string
	}{
		{"towards a revision, though somebody has changed the filter", a.touch, written},
		{"a repair of the filter", func() {}, urgent},
		{"a repair of something else", a.Wake, written},
		{"the filter again", a.touch, urgent},
	} {
		walked = nil
		c.do()
		if err := a.pass(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, walked); diff != "" {
			t.Errorf("%s (-want +got)\n%s", c.what, diff)
		}
	}
	a.touch()
	walked = nil
	a.walk(t.Context(), &pass{blade: a.wantedNow().blade})
	if diff := cmp.Diff(written, walked); diff != "" {
		t.Errorf("a plan (-want +got)\n%s", diff)
	}
}
