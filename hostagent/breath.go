package hostagent

import (
	"context"
	"time"
)

// breath is how long after an operator's word the blade is looked at again. It is no longer than the longest pace.
const breath = 300 * time.Millisecond

// afterWord waits for the end of an operator's word, if one is being done, and a breath more. What woke the loop is nearly always the word
// itself; a guest that it has just started is to have the processor first. A filter that somebody else has changed does not wait.
func (a *Agent) afterWord(ctx context.Context) {
	if !a.wordEnds() {
		return
	}
	over := time.After(breath)
	for !a.touched.Load() {
		select {
		case <-ctx.Done():
			return
		case <-over:
			return
		case <-a.wakeC: // the look that follows is for this too
		}
	}
}

// wordEnds returns when nobody holds the blade, and says whether somebody did.
func (a *Agent) wordEnds() bool {
	held := !a.passing.TryLock()
	if held {
		a.passing.Lock()
	}
	defer a.passing.Unlock()
	return held
}
