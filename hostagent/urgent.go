package hostagent

import "slices"

// touch asks the loop to look at the filter before anything else.
func (a *Agent) touch() {
	a.touched.Store(true)
	a.Wake()
}

// stagesOf is the order of a pass. One that repairs what somebody has done to the filter begins with it: until it stands again the bridges forward
// everything, and what comes before it in the written order asks libvirt first. A pass towards a new revision keeps the written order, in
// which a guest that leaves loses its rules after it has ended.
func (a *Agent) stagesOf(p *pass) []stage {
	if p.only != nil {
		return slices.DeleteFunc(slices.Clone(a.order), func(s stage) bool { return !slices.Contains(p.only, s.name) })
	}
	i := slices.IndexFunc(a.order, func(s stage) bool { return s.name == "filter" })
	if !p.apply || !a.touched.Load() || i < 0 || !a.hasPassed() {
		return a.order
	}
	a.touched.Store(false)
	return append([]stage{a.order[i]}, a.order...)
}

// hasPassed says whether a pass for the revision in force has ended.
func (a *Agent) hasPassed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.passed
}
