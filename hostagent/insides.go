package hostagent

import (
	"context"
	"log/slog"
	"os"
	"sync"

	"github.com/bladenet/bladenet/guests/inside"
	"github.com/bladenet/bladenet/policy"
)

// insides watches the containers' network namespaces, so that what is changed in one is put right at once.
type insides struct {
	log  *slog.Logger
	wake func()

	mu   sync.Mutex
	each map[policy.GuestName]watched
}

// watched is one namespace. Its file tells it from the next one of that guest.
type watched struct {
	file os.FileInfo
	end  context.CancelFunc
}

// keep ends the watches of all guests but these. A watch keeps its namespace alive, so it has to end before the namespace is deleted.
func (s *insides) keep(guests []policy.Guest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := map[policy.GuestName]bool{}
	for _, g := range guests {
		wanted[g.Name] = g.Driver == policy.DriverLXC
	}
	for name, w := range s.each {
		if !wanted[name] {
			w.end()
			delete(s.each, name)
		}
	}
}

// watch begins to watch a guest's namespace unless it is watched already.
func (s *insides) watch(ctx context.Context, name policy.GuestName) {
	path := policy.NamespacePath(name)
	file, err := os.Stat(path)
	if err != nil {
		return // it is not there yet
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.each[name]; ok {
		if os.SameFile(w.file, file) {
			return
		}
		w.end()
	}
	ctx, cancel := context.WithCancel(ctx)
	s.each[name] = watched{file, cancel}
	go func() {
		err := inside.Watch(ctx, path, s.wake)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("watch", "subsystem", "inside", "guest", name, "err", err)
		s.forget(name, file)
	}()
}

// forget lets the next pass begin a watch that has failed anew.
func (s *insides) forget(name policy.GuestName, file os.FileInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w, ok := s.each[name]; ok && os.SameFile(w.file, file) {
		w.end()
		delete(s.each, name)
	}
}
