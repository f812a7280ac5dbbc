package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bladenet/bladenet/hostagent/api"
)

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func add(t *testing.T, j *Journal, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := j.Add(api.Entry{Kind: api.Agent, Message: m}); err != nil {
			t.Fatal(err)
		}
	}
}

func messages(entries []api.Entry) string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%d %s", e.Number, e.Message))
	}
	return strings.Join(out, ", ")
}

func TestEntriesOutliveTheAgent(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	add(t, j, "a", "b")
	before, _ := j.After(0)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	after, _ := again.After(0)
	for i := range before {
		before[i].Time = before[i].Time.Round(0) // the monotonic reading is not on disk
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("After a restart (-before +after):\n%s", diff)
	}
	add(t, again, "c")
	got, _ := again.After(1)
	if m := messages(got); m != "2 b, 3 c" {
		t.Errorf("After(1) = %s", m)
	}
}

// TestARecordThatIsTakenAwayBeginsAnew removes the file, then the folder.
func TestARecordThatIsTakenAwayBeginsAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "journal")
	j := open(t, dir)
	add(t, j, "a")
	for i, take := range []func() error{
		func() error { return os.Remove(filepath.Join(dir, newer)) },
		func() error { return os.RemoveAll(dir) },
		func() error { return os.Rename(dir, dir+"-aside") },
	} {
		if err := take(); err != nil {
			t.Fatal(err)
		}
		add(t, j, "b", "c")
		_, entries, err := openDisk(dir)
		if want := fmt.Sprintf("%d b, %d c", 2*i+2, 2*i+3); err != nil || messages(entries) != want {
			t.Errorf("%d: on disk is %q, %v; want %q", i, messages(entries), err, want)
		}
	}
}

func TestATornLineCostsOneEntry(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	add(t, j, "a", "b")
	_ = j.Close()
	path := filepath.Join(dir, newer)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data[:len(data)-10], 0o600); err != nil {
		t.Fatal(err)
	}
	add(t, open(t, dir), "c")
	got, _ := open(t, dir).After(0)
	if m := messages(got); m != "1 a, 2 c" {
		t.Errorf("After a torn line: %s", m)
	}
}

func TestMemoryAndDiskAreBounded(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	long := strings.Repeat("x", 4000)
	const n = 3 * fullAt / 4000
	for range n {
		add(t, j, long)
	}
	for range Keep + 5 {
		add(t, j, "y")
	}
	got, _ := j.After(0)
	if len(got) != Keep || got[len(got)-1].Number != n+Keep+5 {
		t.Errorf("%d entries, last %d", len(got), got[len(got)-1].Number)
	}
	total := int64(0)
	for _, name := range []string{newer, older} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if total > 2*fullAt {
		t.Errorf("%d bytes on disk, want %d at most", total, 2*fullAt)
	}
	if again, _ := open(t, dir).After(n + Keep); len(again) != 5 {
		t.Errorf("%d of the last five entries are on disk", len(again))
	}
}

// TestAFailingDiskIsToldOnce writes to a file that takes nothing.
func TestAFailingDiskIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	path, aside := filepath.Join(dir, newer), filepath.Join(dir, "aside")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err := errors.Join(err, os.Rename(path, aside), os.Symlink("/dev/full", path)); err != nil {
		t.Fatal(err)
	}
	good := j.disk.file
	j.disk.file = full
	if err := j.Add(api.Entry{Message: "a"}); err == nil || !strings.Contains(err.Error(), "no space") {
		t.Errorf("Add to a full disk = %v", err)
	}
	if err := j.Add(api.Entry{Message: "b"}); err != nil {
		t.Errorf("a second Add = %v, want silence", err)
	}
	if err := os.Rename(aside, path); err != nil {
		t.Fatal(err)
	}
	j.disk.file = good
	add(t, j, "c")
	if got, _ := j.After(0); messages(got) != "1 a, 2 b, 3 c" {
		t.Errorf("in memory: %s", messages(got))
	}
}

func TestAReaderIsWoken(t *testing.T) {
	j := open(t, t.TempDir())
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			last := uint64(0)
			for last < 50 {
				entries, more := j.After(last)
				for _, e := range entries {
					if e.Number != last+1 {
						t.Errorf("%d follows %d", e.Number, last)
					}
					last = e.Number
				}
				if len(entries) == 0 {
					<-more
				}
			}
		})
	}
	for range 50 {
		add(t, j, "x")
	}
	readers.Wait()
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("{\"number\":1}\n{\"num"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, e := range decode(data) {
			if e.Number == 0 {
				t.Errorf("an entry without a number: %+v", e)
			}
		}
	})
}
