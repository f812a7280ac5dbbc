package hostagent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/bladenet/bladenet/guests/channel"
	"github.com/bladenet/bladenet/policy"
)

// How often a director is asked how it is, how long it may take to answer, and to reach a state before a guest is removed.
const (
	helperPoll    = 500 * time.Millisecond
	helperTimeout = 3 * time.Second
	settleTimeout = 5 * time.Second
	settlePoll    = 20 * time.Millisecond
)

// How long at least lies between two tellings of what one director says.
const (
	firstGap = time.Second
	lastGap  = time.Minute
)

// helpers keeps one conversation with the helper in each virtual machine of the blade, directors and those real servers that are one:
// it hands over the wanted state when the helper has another one, and remembers the last answer. What it reads is a guest's word: shown,
// never obeyed.
type helpers struct {
	log      *slog.Logger
	wake     func()
	patience time.Duration // how long one may be silent before it is hung
	dial     func(ctx context.Context, cid uint32) (*channel.Client, error)
	changed  func(name policy.GuestName, before, after channel.Status) // is told what a director said when it was called last, and says now

	mu      sync.Mutex
	each    map[policy.GuestName]*conversation
	counted time.Time // until then loads are asked for at each question
	scraped time.Time // until then they are asked for now and then
}

// How long loads are asked for after somebody wanted to see them, and after they were scraped, which may happen once a minute; and how old
// scraped ones may be.
const (
	countFor  = 10 * time.Second
	scrapeFor = 3 * time.Minute
	scrapeAge = 10 * time.Second
)

// query is what a director is asked now. The caller holds the mutex.
func (d *helpers) query(c *conversation) channel.Query {
	now := time.Now()
	return channel.Query{Count: now.Before(d.counted) || now.Before(d.scraped) && now.Sub(c.when) >= scrapeAge}
}

// scrape has the helpers count now and then, for a while.
func (d *helpers) scrape() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.scraped = time.Now().Add(scrapeFor)
}

// count has the helpers count what each real server has to do, for a while.
func (d *helpers) count() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counted = time.Now().Add(countFor)
}

// conversation is with one helper. The mutex of helpers guards the fields below it.
type conversation struct {
	guest  policy.Guest
	digest string
	cancel context.CancelFunc
	kick   chan struct{}

	status  channel.Status
	seen    time.Time
	counted channel.Status // the last one with loads
	when    time.Time      // it came
	err     error
	silence silence

	// Only converse uses these. A guest that says something new at each question must not fill the journal: it is told on at
	// moments that lie further and further apart.
	told   channel.Status
	toldAt time.Time
	gap    time.Duration
}

// want begins conversations with new machines, ends those that are gone and hands changed states over.
func (d *helpers) want(ctx context.Context, guests []policy.Guest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wanted := map[policy.GuestName]bool{}
	for _, g := range guests {
		if g.Driver != policy.DriverKVM {
			continue
		}
		wanted[g.Name] = true
		digest := stateDigest(g)
		if c, ok := d.each[g.Name]; ok && c.guest.CID == g.CID {
			if c.digest != digest {
				c.guest, c.digest = g, digest
				c.nudge()
			}
			continue
		} else if ok {
			c.cancel()
		}
		cctx, cancel := context.WithCancel(ctx)
		c := &conversation{guest: g, digest: digest, cancel: cancel, kick: make(chan struct{}, 1), silence: silence{began: time.Now()}}
		d.each[g.Name] = c
		go d.converse(cctx, c)
	}
	for name, c := range d.each {
		if !wanted[name] {
			c.cancel()
			delete(d.each, name)
		}
	}
}

// settle waits until every director that answers has reached the state that is wanted now, but not for long: one that cannot
// must not hold up the blade.
func (d *helpers) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for ctx.Err() == nil && d.behind() {
		sleep(ctx, settlePoll)
	}
}

// behind says whether a director that answers has not reached its state yet.
func (d *helpers) behind() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.each {
		if c.guest.Balancer != nil && c.err == nil && !c.seen.IsZero() && (c.status.Revision != c.digest || c.status.Error != "") {
			return true
		}
	}
	return false
}

// last returns what a director said last, when, and the error of the last attempt. False: no such director.
func (d *helpers) last(name policy.GuestName) (answer directorAnswer, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c, ok := d.each[name]
	if !ok {
		return directorAnswer{}, false
	}
	return directorAnswer{
		status: c.status, seen: c.seen, err: c.err, counted: c.counted, when: c.when,
		inForce: c.err == nil && !c.seen.IsZero() && c.status.Revision == c.digest,
	}, true
}

// directorAnswer is the last word of a helper.
type directorAnswer struct {
	status  channel.Status
	counted channel.Status // the last one with what each real server had to do
	when    time.Time      // that came
	seen    time.Time
	err     error // of the last attempt to speak with it
	inForce bool  // it answered last time, and has applied the state that is wanted now
}

// answers says whether it answered last time.
func (a directorAnswer) answers() bool { return a.err == nil && !a.seen.IsZero() }

// problem is why it does not answer, or what it says is wrong.
func (a directorAnswer) problem() string {
	if a.err != nil {
		return a.err.Error()
	}
	return a.status.Error
}

// nudge makes the conversation look at once. The caller may hold the mutex.
func (c *conversation) nudge() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

func (d *helpers) converse(ctx context.Context, c *conversation) {
	var client *channel.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	for ctx.Err() == nil {
		client = d.speak(ctx, c, client)
		select {
		case <-ctx.Done():
		case <-c.kick:
		case <-time.After(helperPoll):
		}
	}
}

// speak does one exchange and returns the client to use next time: nil after an error, because a stream that failed once has
// lost its framing.
func (d *helpers) speak(ctx context.Context, c *conversation, client *channel.Client) *channel.Client {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	d.mu.Lock()
	guest, digest, query := c.guest, c.digest, d.query(c)
	d.mu.Unlock()

	status, client, err := exchange(ctx, d.dial, client, guest, digest, query)
	d.mu.Lock()
	was := c.err == nil && c.status.Revision == digest
	short := err == nil && shortOf(c.status) != shortOf(status)
	changed := (c.err == nil) != (err == nil) || was != (err == nil && status.Revision == digest)
	c.err = err
	if err == nil {
		c.status, c.seen, c.silence.questions = status, time.Now(), 0
		if query.Count {
			c.counted, c.when = status, c.seen
		}
	} else {
		c.silence.questions++
	}
	_, hung := c.hung(d.patience, time.Time{}, time.Now())
	d.mu.Unlock()
	if err == nil {
		d.tell(c, guest.Name, status, time.Now())
	}
	if changed {
		if err != nil {
			d.log.Warn("helper does not answer", "guest", guest.Name, "err", err)
		} else {
			d.log.Info("helper answers", "guest", guest.Name, "state", status.Revision, "in_force", status.Revision == digest)
		}
	}
	if changed || hung || short {
		d.wake()
	}
	return client
}

// shortOf names the first service that wants a spare real server.
func shortOf(s channel.Status) policy.ServiceName {
	for _, v := range s.Services {
		if v.Short {
			return v.Service
		}
	}
	return ""
}

// tell hands on what a director says otherwise than it did when that was told last.
func (d *helpers) tell(c *conversation, name policy.GuestName, status channel.Status, now time.Time) {
	if c.toldAt.IsZero() && status.Uptime > now.Sub(c.silence.began) {
		c.told, c.toldAt = status, now // it was so before this agent began
		return
	}
	quiet := now.Sub(c.toldAt)
	if quiet < c.gap || reflect.DeepEqual(c.told.Services, status.Services) && slices.Equal(c.told.Announce.Holds, status.Announce.Holds) {
		return
	}
	c.gap = min(max(2*c.gap, firstGap), lastGap)
	if quiet > 2*lastGap {
		c.gap = firstGap
	}
	d.changed(name, c.told, status)
	c.told, c.toldAt = status, now
}

// exchange asks for the status and hands the state over when the helper has another one.
func exchange(ctx context.Context, dial func(context.Context, uint32) (*channel.Client, error), client *channel.Client, guest policy.Guest, digest string, query channel.Query) (channel.Status, *channel.Client, error) {
	if client == nil {
		var err error
		if client, err = dial(ctx, guest.CID); err != nil {
			return channel.Status{}, nil, err
		}
	}
	status, err := client.Status(ctx, query)
	if err == nil && status.Revision != digest {
		want := channel.Apply{Revision: digest, Guest: guest.Name, Role: guest.Role, Inside: guest.Inside}
		if guest.Balancer != nil {
			want.Balancer = *guest.Balancer
		}
		status, err = client.Apply(ctx, want)
	}
	if err != nil {
		client.Close()
		return channel.Status{}, nil, err
	}
	return status, client, nil
}

// stateDigest names the state that a virtual machine should have; equal states have equal names.
func stateDigest(g policy.Guest) string {
	data, err := json.Marshal(struct {
		Inside   policy.Inside
		Balancer *policy.Balancer
	}{g.Inside, g.Balancer})
	if err != nil {
		panic(fmt.Sprintf("encode state of %s: %v", g.Name, err)) // plain data always encodes
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}
