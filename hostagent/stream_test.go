package hostagent

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy/plan"
)

// chunks is a response of which each part that was sent counts.
type chunks struct {
	*httptest.ResponseRecorder
	lines []int // in each part
}

func (c *chunks) Flush() {
	c.lines = append(c.lines, strings.Count(c.Body.String(), "\n"))
	c.Body.Reset()
}

// TestAStagesStepsAreSentTogether: whoever follows wakes once a stage, and hears each message at once.
func TestAStagesStepsAreSentTogether(t *testing.T) {
	w := &chunks{ResponseRecorder: httptest.NewRecorder()}
	step := &plan.Step{Verb: plan.Create, Object: "veth www-1.0"}
	stream(w, httptest.NewRequest("POST", "/v1/spawn", strings.NewReader("{}")), func(_ context.Context, _ api.SpawnRequest, report func(api.Event)) error {
		report(api.Event{Message: "revision 2 in force"})
		report(api.Event{Step: step})
		report(api.Event{Step: step})
		report(api.Event{Step: step, Took: time.Second})
		report(api.Event{Message: "in rotation"})
		report(api.Event{Step: step})
		return nil
	})
	if diff := cmp.Diff([]int{0, 1, 3, 1, 2}, w.lines); diff != "" {
		t.Errorf("lines in each part (-want +got):\n%s", diff)
	}
}
