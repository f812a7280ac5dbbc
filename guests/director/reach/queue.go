package reach

import (
	"time"

	"github.com/bladenet/bladenet/guests/director/health"
)

// probing is a target and where it stands.
type probing struct {
	target   Target
	verdict  health.Verdict
	finding  Finding   // its state is the verdict's
	began    time.Time // of the last probe
	sequence uint32    // of a probe that is out
	forget   func()    // stops the time that it has; nil: none is out
	due      time.Time // of the next one
	place    int       // in the queue
}

// queue is the targets that wait, a heap by when they are due.
type queue []*probing

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push and Pop are container/heap's.
func (q *queue) Push(x any) {
	w := x.(*probing)
	w.place = len(*q)
	*q = append(*q, w)
}

func (q *queue) Pop() any {
	old := *q
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return last
}
