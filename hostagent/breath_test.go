package hostagent

import (
	"context"
	"testing"
	"time"
)

// TestTheGuestOfAWordIsFirst wakes the loop while a word is done: it looks a breath after the end of the word, and at once where somebody has
// changed the filter.
func TestTheGuestOfAWordIsFirst(t *testing.T) {
	dir := t.TempDir()
	writePolicy(t, dir)
	a := trialAgent(t, dir, &world{})
	looks := make(chan time.Time, 100)
	a.order = []stage{{"links", func(context.Context, *pass) (work, error) {
		looks <- time.Now()
		return work{}, nil
	}}}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- a.Run(ctx) }()
	<-looks
	after := func(meanwhile func()) time.Duration {
		time.Sleep(50 * time.Millisecond) // the loop rests
		for len(looks) > 0 {
			<-looks
		}
		a.passing.Lock()
		a.Wake()
		time.Sleep(lastWait + 50*time.Millisecond) // the loop wants to look, and cannot
		end := time.Now()
		a.passing.Unlock()
		meanwhile()
		return (<-looks).Sub(end)
	}
	if took := after(func() {}); took < breath || took > breath+time.Second {
		t.Errorf("it looked %s after a word, want %s", took, breath)
	}
	if took := after(func() {
		for range 5 {
			time.Sleep(breath / 10)
			a.Wake()
		}
	}); took < breath || took > breath+time.Second {
		t.Errorf("it was woken and looked %s after a word, want %s", took, breath)
	}
	if took := after(a.touch); took >= breath {
		t.Errorf("somebody changed the filter, and it looked %s after a word", took)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
