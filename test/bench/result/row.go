package result

import "math"

// Row is one finding. Ratio is ours by the peer's, except where Unit says that it is a plain number.
type Row struct {
	ID     string   `json:"id"`
	What   string   `json:"what"`
	PeerIs string   `json:"peer_is,omitempty"`
	Ratio  float64  `json:"ratio"`
	P25    float64  `json:"p25"`
	P75    float64  `json:"p75"`
	Bound  Bound    `json:"bound,omitempty"`
	Target *float64 `json:"target"` // null: reported only
	Met    *bool    `json:"met"`
	Ours   float64  `json:"ours"` // median, in Unit
	Peer   float64  `json:"peer"`
	Unit   string   `json:"unit"`
	Rounds int      `json:"rounds"`
	Note   string   `json:"note,omitempty"`
}

// Bound says on which side of its target a ratio must be.
type Bound string

// The bounds.
const (
	AtMost  Bound = "at most"
	AtLeast Bound = "at least"
)

// Compare makes a row of two series of the same rounds.
func Compare(id, what, peerIs, unit string, ours, peer []float64) Row {
	r := SpreadOf(Ratios(ours, peer))
	return Row{
		ID: id, What: what, PeerIs: peerIs, Ratio: r.Median, P25: r.P25, P75: r.P75,
		Ours: SpreadOf(ours).Median, Peer: SpreadOf(peer).Median, Unit: unit, Rounds: len(ours),
	}
}

// Count makes a row of a number that stands for itself, and what a peer's was.
func Count(id, what, peerIs, unit string, ours, peer float64) Row {
	return Row{ID: id, What: what, PeerIs: peerIs, Ratio: ours, P25: ours, P75: ours, Ours: ours, Peer: peer, Unit: unit, Rounds: 1}
}

// Judged returns the row with its target. The median decides; NaN never meets one.
func (r Row) Judged(b Bound, target float64) Row {
	met := b == AtMost && r.Ratio <= target || b == AtLeast && r.Ratio >= target
	r.Bound, r.Target, r.Met = b, &target, &met
	return r
}

// Noted returns the row with a remark.
func (r Row) Noted(note string) Row {
	r.Note = note
	return r
}

// finite keeps a row writable: JSON has no NaN.
func (r Row) finite() Row {
	for _, v := range []*float64{&r.Ratio, &r.P25, &r.P75, &r.Ours, &r.Peer} {
		if math.IsNaN(*v) || math.IsInf(*v, 0) {
			*v = -1
			r.Note += " (no figure)"
		}
	}
	return r
}
