package health

import (
	"context"
	"time"

	"github.com/bladenet/bladenet/policy"
)

// State is what is known of a check.
type State int

// The states. A check is Unknown until its first probe ended.
const (
	Unknown State = iota
	Up
	Down
)

// String is the state's name.
func (s State) String() string { return [...]string{"unknown", "up", "down"}[s] }

// Result is a change of one check's state or of its answer, or its first one.
type Result struct {
	ID     string
	State  State
	Since  time.Time     // when the probe that decided it began
	Reason string        // why it is down; empty when it is up
	Took   time.Duration // of the probe that decided it
	Back   bool          // it is up again after it was down
	Answer
}

// Answer is what a server that is well says of itself. The zero Answer is nothing.
type Answer struct {
	Weighs bool // it says which weight it wants
	Weight int
}

// Probe tries one check once. No error: the server is well. It ends with ctx, whose deadline is the check's timeout.
type Probe func(ctx context.Context, c policy.Check) (Answer, error)
