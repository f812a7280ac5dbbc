package api

import (
	"time"

	"github.com/bladenet/bladenet/policy/filter"
)

// TraceRequest asks to follow packets of a VIP of the blade's zone, or of a guest of the blade.
type TraceRequest struct {
	Target  string        `json:"target"`
	For     time.Duration `json:"for,omitempty"`     // in nanoseconds, at most 10 minutes; 0: ten seconds
	Packets int           `json:"packets,omitempty"` // at most 10 000; 0: twenty
}

// TracedPacket is a packet that came by, what became of it and why.
type TracedPacket struct {
	In      string        `json:"in"`
	Out     string        `json:"out,omitempty"` // empty where it did not come so far
	Packet  string        `json:"packet"`
	Verdict string        `json:"verdict"` // accept, drop, or stay where no port is there for it
	Reason  filter.Reason `json:"reason,omitempty"`
	Rule    string        `json:"rule,omitempty"` // what decides: "rule admin", "service www", or a sentence
	Pos     string        `json:"pos,omitempty"`  // the policy's line
	Steps   []TraceStep   `json:"steps"`
}

// TraceStep is what became of a packet at one rule or at a chain's end.
type TraceStep struct {
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Rule    string `json:"rule,omitempty"` // in nft's words
	Verdict string `json:"verdict"`
}
