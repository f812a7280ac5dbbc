package health

// Verdict counts successes and failures in a row. The first success is a first verdict, a failure is one as often in a row as it takes later: a
// probe that is lost while a director boots must not have it announce without a server that is well.
type Verdict struct {
	Rise, Fall int
	State      State
	run        int // probes in a row that speak against State
}

// Add takes one probe's outcome and says whether the state changed by it.
func (v *Verdict) Add(ok bool) bool {
	says, need := Down, max(v.Fall, 1)
	if ok {
		says, need = Up, max(v.Rise, 1)
	}
	if v.State == says {
		v.run = 0
		return false
	}
	v.run++
	if v.run < need && (v.State != Unknown || !ok) {
		return false
	}
	v.State, v.run = says, 0
	return true
}

// Sure says whether there is a state and the last probe did not speak against it.
func (v *Verdict) Sure() bool { return v.State != Unknown && v.run == 0 }
