package ipvs

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/plan"
)

// The kernel's synchronisation daemons in generic netlink (include/uapi/linux/ip_vs.h). The library knows nothing of them.
const (
	newDaemon = 9
	delDaemon = 10
	getDaemon = 11

	attrDaemon = 3

	daemonState = 1
	daemonLink  = 2
	daemonID    = 3

	master = 1 // tells
	backup = 2 // hears
)

// daemon is one of them, by its state; there is at most one of each.
type daemon struct {
	state uint32
	link  string
	id    uint32
}

// Sync has the kernel tell others on an interface's network of this namespace's connections, and hear of theirs, as directors do that share
// a number from 1 to 255; with 0 it does neither. It returns what it changed.
func (k *Kernel) Sync(ctx context.Context, link string, id int) ([]plan.Step, error) {
	var done []plan.Step
	err := k.with(func(s *socket) error {
		have, err := s.daemons(ctx)
		if err != nil {
			return err
		}
		var errs []error
		for _, state := range []uint32{backup, master} {
			want := daemon{state, link, uint32(id)}
			is, running := have[state]
			if running && (id == 0 || is != want) {
				if err := gone(s.daemon(ctx, delDaemon, is)); err != nil {
					errs = append(errs, fmt.Errorf("stop %s: %w", is.name(), err))
					continue
				}
				done = append(done, is.step(plan.Delete))
				running = false
			}
			if id == 0 || running {
				continue
			}
			if err := s.daemon(ctx, newDaemon, want); err != nil {
				errs = append(errs, fmt.Errorf("start %s: %w", want.name(), err))
				continue
			}
			done = append(done, want.step(plan.Create))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		err = fmt.Errorf("sync ipvs: %w", err)
	}
	return done, err
}

func (d daemon) name() string {
	return "synchronisation " + map[uint32]string{master: "master", backup: "backup"}[d.state]
}

func (d daemon) step(verb plan.Verb) plan.Step {
	return plan.Step{Subsystem: "director", Verb: verb, Object: d.name(), Detail: []string{fmt.Sprintf("number %d on %s", d.id, d.link)}}
}

// daemons reads which of them run.
func (s *socket) daemons(ctx context.Context) (map[uint32]daemon, error) {
	out := map[uint32]daemon{}
	return out, s.dump(ctx, getDaemon, nil, func(attributes []byte) error {
		d, err := decodeDaemon(attributes)
		out[d.state] = d
		return err
	})
}

func decodeDaemon(attributes []byte) (daemon, error) {
	f, err := nested(attributes, attrDaemon)
	if err != nil {
		return daemon{}, err
	}
	return daemon{f.number(daemonState), f.text(daemonLink), f.number(daemonID)}, f.err()
}

// daemon starts or stops one.
func (s *socket) daemon(ctx context.Context, command byte, d daemon) error {
	var m messages
	s.seq++
	m.daemon(d, command, s.family, s.seq)
	results, err := s.acknowledged(ctx, m, s.seq, 1)
	if err != nil {
		return err
	}
	return results[0]
}

// daemon appends the message that starts or stops a daemon, to be acknowledged.
func (m *messages) daemon(d daemon, command byte, family uint16, seq uint32) {
	start := m.open(family, command, unix.NLM_F_ACK, seq)
	nest := m.nest(attrDaemon)
	m.number(daemonState, d.state)
	m.bytes(daemonLink, append([]byte(d.link), 0))
	m.number(daemonID, d.id)
	m.shut(nest)
	m.close(start)
}
