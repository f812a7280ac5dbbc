package hostagent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/hostagent/revision"
	"github.com/bladenet/bladenet/policy"
)

// folder is the policy folder as it is: its files and what they mean.
type folder struct {
	files []policy.File
	fleet *policy.Fleet
}

// folder reads the policy folder; its mistakes are reported.
func (a *Agent) folder(report func(api.Event)) (folder, error) {
	files, err := policy.ReadDir(a.cfg.Policy)
	if err != nil {
		return folder{}, err
	}
	fleet, found := a.reading.load(files)
	return folder{files, fleet}, refuse(found, report)
}

// settledFolder reads the policy folder in order to change it by a word. It refuses while what is in force is on trial, or is not what
// the folder holds: the word would carry along what nobody has applied.
func (a *Agent) settledFolder(report func(api.Event)) (folder, error) {
	f, err := a.folder(report)
	if err != nil {
		return folder{}, err
	}
	now := a.wantedNow().revision
	if now.Trial != nil {
		return folder{}, onTrial(now)
	}
	if now.Number > 0 && !sameFiles(f.files, now.Files) {
		return folder{}, fmt.Errorf("%s has changes that are not in force: `bladectl plan` shows them; `bladectl apply` them or take them back first", a.cfg.Policy)
	}
	return f, nil
}

// rewrite makes the folder hold other files, from which guests may be gone, and the blade so, if the files are right. The caller holds
// passing.
func (a *Agent) rewrite(from folder, files []policy.File, gone []policy.GuestName, note string, report func(api.Event)) error {
	blade, err := a.check(files, report)
	if err != nil {
		return err
	}
	written := func(e fileEdit) {
		verb := "changed"
		if e.After == nil {
			verb = "removed"
		}
		report(api.Event{Message: "policy file " + e.Name + ": " + verb})
	}
	if err := a.commit(change{Edits: edits(from.files, files), Gone: gone}, revision.Revision{Note: note, Files: files}, blade, written, report); err != nil {
		return err
	}
	return a.pass(a.life, report)
}

// change is what one word of an operator does to the policy folder. It is on disk from before the first file is written until the
// revision stands: an agent that finds one ends it, or takes it back.
type change struct {
	Edits []fileEdit         `json:"edits"`
	Gone  []policy.GuestName `json:"gone,omitempty"` // guests that are no more afterwards
}

// fileEdit is one file before and after; null means that it is not there.
type fileEdit struct {
	Name   string `json:"name"`
	Before []byte `json:"before"`
	After  []byte `json:"after"`
}

// edits lists what differs between two sets of files, those that go last.
func edits(before, after []policy.File) []fileEdit {
	var out, gone []fileEdit
	was := map[string][]byte{}
	for _, f := range before {
		was[f.Name] = present(f.Data)
	}
	for _, f := range after {
		if old, ok := was[f.Name]; !ok || !bytes.Equal(old, f.Data) {
			out = append(out, fileEdit{Name: f.Name, Before: old, After: present(f.Data)})
		}
		delete(was, f.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		gone = append(gone, fileEdit{Name: name, Before: was[name]})
	}
	return append(out, gone...)
}

// present is a file's bytes, which are not nil when there are none.
func present(data []byte) []byte {
	if data == nil {
		return []byte{}
	}
	return data
}

// commit changes the folder's files and makes them the revision in force, or leaves both as they were. The caller holds passing.
func (a *Agent) commit(c change, draft revision.Revision, blade policy.Blade, written func(fileEdit), report func(api.Event)) error {
	note, err := json.Marshal(c)
	if err == nil {
		err = revision.WriteFile(a.changeFile(), note, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note the change of the policy folder: %w", err)
	}
	for i, e := range c.Edits {
		if err := put(e.Name, e.After); err != nil {
			return errors.Join(err, a.takeBack(c.Edits[:i]))
		}
		written(e)
	}
	if err := a.enforce(draft, blade, report); err != nil {
		return errors.Join(err, a.takeBack(c.Edits))
	}
	return a.endChange(c)
}

func (a *Agent) changeFile() string { return filepath.Join(a.cfg.State, "change.json") }

// takeBack makes files as they were before edits.
func (a *Agent) takeBack(done []fileEdit) error {
	var errs []error
	for _, e := range slices.Backward(done) {
		errs = append(errs, put(e.Name, e.Before))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the note stays: the next agent tries again
	}
	return os.Remove(a.changeFile())
}

// endChange forgets what a change took away, and the change.
func (a *Agent) endChange(c change) error {
	a.sweepStopped(c.Gone)
	if err := os.Remove(a.changeFile()); err != nil {
		return fmt.Errorf("end the change of the policy folder: %w", err)
	}
	return nil
}

// finishChange ends the change during which an earlier agent died: forward when its revision stands, else back. A file that somebody
// has written since stays as it is.
func (a *Agent) finishChange() error {
	a.passing.Lock()
	defer a.passing.Unlock()
	text, err := os.ReadFile(a.changeFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var c change
	if err == nil {
		err = json.Unmarshal(text, &c)
	}
	if err != nil {
		return fmt.Errorf("read the change that was under way: %w", err)
	}
	forward := c.stands(a.wantedNow().revision.Files)
	for _, e := range c.Edits {
		to, from := e.Before, e.After
		if forward {
			to, from = from, to
		}
		if now, err := contents(e.Name); err != nil {
			return err
		} else if !same(now, from) {
			continue // done before the agent died, or somebody's since
		}
		if err := put(e.Name, to); err != nil {
			return err
		}
	}
	a.record(api.Entry{Kind: api.Agent, Message: "bladed ended while it changed the policy folder: " + map[bool]string{true: "finished", false: "taken back"}[forward]})
	if !forward {
		return os.Remove(a.changeFile())
	}
	return a.endChange(c)
}

// stands says whether a revision's files have all of a change.
func (c change) stands(files []policy.File) bool {
	have := map[string][]byte{}
	for _, f := range files {
		have[f.Name] = present(f.Data)
	}
	return !slices.ContainsFunc(c.Edits, func(e fileEdit) bool { return !same(have[e.Name], e.After) })
}

// same compares two files' bytes; nil is a file that is not there, which an empty one is not.
func same(x, y []byte) bool { return (x == nil) == (y == nil) && bytes.Equal(x, y) }

// contents returns a file's bytes, nil when it is not there.
func contents(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return present(data), nil
}

// put makes a file hold bytes; nil removes it.
func put(path string, data []byte) error {
	if data != nil {
		if err := revision.WriteFile(path, data, 0o644); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// replaceFiles returns files with those of the same name replaced, new ones added and the ones in gone left out, in name
// order, as ReadDir would list them.
func replaceFiles(files, changed []policy.File, gone []string) []policy.File {
	byName := map[string]policy.File{}
	for _, f := range files {
		byName[f.Name] = f
	}
	for _, f := range changed {
		byName[f.Name] = f
	}
	for _, name := range gone {
		delete(byName, name)
	}
	var out []policy.File
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		out = append(out, byName[name])
	}
	return out
}
