package hostagent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/hostagent/api"
	"github.com/bladenet/bladenet/policy"
)

// drainPoll is how often connections that are left are looked at.
const drainPoll = 250 * time.Millisecond

// Drain writes into the policy folder that a guest takes no new connections, or takes them again, and makes the blade so. It returns
// when its connections have ended, or an error when they have not in the time that the request gives them: the guest stays drained.
func (a *Agent) Drain(ctx context.Context, r api.DrainRequest, report func(api.Event)) error {
	if err := a.setDrain(r, report); err != nil {
		return err
	}
	if r.Undo || r.Wait <= 0 {
		return nil
	}
	return a.untilEmpty(ctx, r.Name, r.Wait, report)
}

func (a *Agent) setDrain(r api.DrainRequest, report func(api.Event)) error {
	a.passing.Lock()
	defer a.passing.Unlock()
	from, err := a.settledFolder(report)
	if err != nil {
		return err
	}
	changed, err := policy.SetDrain(from.files, from.fleet, r.Name, !r.Undo)
	if err != nil {
		return err
	}
	note := "drain " + string(r.Name)
	if r.Undo {
		note = "undrain " + string(r.Name)
	} else if short := from.fleet.LeftShort(r.Name); len(short) > 0 && !r.Force {
		return fmt.Errorf("%s: %s; --force drains it all the same", note, strings.Join(short, "; "))
	}
	if len(changed) == 0 {
		report(api.Event{Message: note + ": it is so already"})
		return nil
	}
	return a.rewrite(from, replaceFiles(from.files, changed, nil), nil, note, report)
}

// drainBefore drains a real server that is about to be destroyed. What stands in the way is said and does not hold the end up.
func (a *Agent) drainBefore(ctx context.Context, name policy.GuestName, wait time.Duration, report func(api.Event)) {
	if g, err := a.wantedGuest(name); err != nil || g.Role != policy.RoleRealServer {
		return
	}
	if err := a.Drain(ctx, api.DrainRequest{Name: name, Force: true, Wait: wait}, report); err != nil {
		report(api.Event{Message: fmt.Sprintf("drain %s: %v", name, err)})
	}
}

// untilEmpty waits until a drained guest has no connection left on the directors of this blade.
func (a *Agent) untilEmpty(ctx context.Context, name policy.GuestName, wait time.Duration, report func(api.Event)) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	begin, said := time.Now(), ""
	for {
		left, text := a.connections(name)
		if text != said {
			said = text
			report(api.Event{Message: text, Took: time.Since(begin)})
		}
		if left == 0 {
			return nil
		}
		sleep(ctx, drainPoll)
		switch {
		case a.life.Err() != nil:
			return errors.New("bladed was stopped")
		case ctx.Err() != nil:
			return fmt.Errorf("%s after %s: %s stays drained", text, time.Since(begin).Round(time.Second), name)
		}
	}
}

// connections counts the established connections of a drained guest on the directors of this blade, and says so. Less than
// none: a director has not counted yet.
func (a *Agent) connections(name policy.GuestName) (left int, text string) {
	directors := 0
	for _, g := range a.wantedNow().blade.Guests {
		if g.Balancer == nil || g.Name != name && !balances(g.Balancer, name) {
			continue
		}
		directors++
		answer, ok := a.helpers.last(g.Name)
		if !ok || !answer.inForce || answer.status.Error != "" {
			return -1, fmt.Sprintf("waiting: %s has not taken it up yet", g.Name)
		}
		who := name
		if g.Name == name {
			who = "" // a director: all that it has
		}
		left += established(answer.status.Services, who)
	}
	if directors == 0 {
		return 0, "drained; no director of this blade counts its connections"
	}
	return left, fmt.Sprintf("%d connections left", left)
}

// established counts the connections of a real server in what a director says, or of all of them when none is named.
func established(services []channel.ServiceStatus, name policy.GuestName) int {
	n := 0
	for _, s := range services {
		for _, d := range s.Destinations {
			if name == "" || d.Guest == name {
				n += d.Active
			}
		}
	}
	return n
}

// balances reports whether a balancer knows a real server.
func balances(b *policy.Balancer, name policy.GuestName) bool {
	for _, v := range b.Services {
		for _, d := range v.Destinations {
			if d.Guest == name {
				return true
			}
		}
	}
	return false
}
