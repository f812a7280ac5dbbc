package hostagent

import (
	"reflect"
	"sync"

	"github.com/bladenet/bladenet/policy"
	"github.com/bladenet/bladenet/policy/filter"
	"github.com/bladenet/bladenet/policy/nft"
)

// reading remembers what the last files said, so that the next ones cost what differs in them: a fleet of ten thousand guests is
// not read, derived and compiled anew for each one that is spawned, nor a filter for each pass.
type reading struct {
	mu       sync.Mutex
	loader   policy.Loader
	deriver  *policy.Deriver
	compiled policy.Blade
	wanted   nft.Wanted
}

// load parses and checks files.
func (r *reading) load(files []policy.File) (*policy.Fleet, policy.Diagnostics) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.loader.Load(files)
}

// derive works out one blade of a fleet without errors. It is always the same blade.
func (r *reading) derive(f *policy.Fleet, name policy.BladeName) (policy.Blade, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.deriver == nil {
		r.deriver = policy.NewDeriver(name)
	}
	return r.deriver.Derive(f)
}

// compile writes a blade's rules. The blade of the call before is told by its slices, which nobody changes: to compare them is
// cheap.
func (r *reading) compile(b policy.Blade) (nft.Wanted, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if reflect.DeepEqual(r.compiled, b) {
		return r.wanted, nil
	}
	wanted, err := nft.Prepare(filter.Compile(b), r.wanted)
	if err == nil {
		r.compiled, r.wanted = b, wanted
	}
	return wanted, err
}
