package nft

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// State is what the kernel holds of our tables.
type State struct {
	tables map[tableName]tableState
}

type tableName struct {
	family filter.Family
	name   string
}

func (n tableName) String() string { return string(n.family) + " " + n.name }

// tableState is a table in the form in which it is compared: what is static as text, what changes as elements.
type tableState struct {
	static   []part
	elements map[string]map[filter.Element]bool
	counts   counts

	table *nftables.Table
	sets  []*nftables.Set
}

// part is a counter, set, chain or rule, and all of it that we manage.
type part struct {
	object string
	body   string
}

// count is a packet and byte counter.
type count struct{ packets, bytes uint64 }

// counts are a table's counters: named ones by name, and those of dynamic sets by set and key.
type counts struct {
	named map[string]count
	hits  map[string]map[string]count
}

// ourTables are the only tables that are read, and the only ones that are written.
func ourTables() []tableName {
	return []tableName{{filter.Bridge, filter.BridgeTable}, {filter.Inet, filter.HostTable}}
}

// observeAttempts bounds how often a dump is repeated because somebody changed the ruleset meanwhile.
const observeAttempts = 10

// Observe reads our tables back, as of one generation of the ruleset. Of a generation that was read before, or that differs from it only by
// what Apply did, only counters and the sets that Apply changed are read again.
func (k *Kernel) Observe(ctx context.Context) (State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.observe(ctx)
}

func (k *Kernel) observe(ctx context.Context) (State, error) {
	for range observeAttempts {
		if err := ctx.Err(); err != nil {
			return State{}, fmt.Errorf("observe tables: %w", err)
		}
		before, err := k.read.GetGen()
		if err != nil {
			return State{}, fmt.Errorf("read generation: %w", err)
		}
		var state State
		if k.seen.valid && k.seen.generation == before.ID {
			state, err = k.reread(k.seen)
		} else {
			state, err = k.dump()
		}
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOENT) {
			continue // somebody changed it under the dump
		}
		if err != nil {
			return State{}, err
		}
		after, err := k.read.GetGen()
		if err != nil {
			return State{}, fmt.Errorf("read generation: %w", err)
		}
		if before.ID == after.ID {
			k.seen = seen{generation: before.ID, state: state, valid: true}
			return state, nil
		}
	}
	return State{}, fmt.Errorf("observe tables: the ruleset changed during each of %d dumps", observeAttempts)
}

func (k *Kernel) dump() (State, error) {
	state := State{tables: map[tableName]tableState{}}
	for _, name := range ourTables() {
		fam := nftables.TableFamily(family(name.family))
		tables, err := k.read.ListTablesOfFamily(fam)
		if err != nil {
			return State{}, fmt.Errorf("list tables of %s: %w", name.family, err)
		}
		i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == name.name && t.Family == fam })
		if i < 0 {
			continue
		}
		t, err := k.dumpTable(tables[i])
		if err != nil {
			return State{}, fmt.Errorf("read table %s: %w", name, err)
		}
		state.tables[name] = t
	}
	return state, nil
}

// reread reads of tables that are otherwise known the counters, and the sets that have changed.
func (k *Kernel) reread(known seen) (State, error) {
	state := State{tables: map[tableName]tableState{}}
	for name, t := range known.state.tables {
		t.counts, t.elements = newCounts(), maps.Clone(t.elements)
		if _, err := k.dumpObjects(&t); err != nil {
			return State{}, fmt.Errorf("read table %s: %w", name, err)
		}
		for _, s := range t.sets {
			if !s.Dynamic && !known.changed[name][s.Name] {
				continue
			}
			if err := k.dumpElements(s, &t); err != nil {
				return State{}, fmt.Errorf("read table %s: %w", name, err)
			}
		}
		state.tables[name] = t
	}
	return state, nil
}

func newCounts() counts {
	return counts{named: map[string]count{}, hits: map[string]map[string]count{}}
}

func (k *Kernel) dumpTable(table *nftables.Table) (tableState, error) {
	t := tableState{elements: map[string]map[filter.Element]bool{}, counts: newCounts(), table: table}
	objects, err := k.dumpObjects(&t)
	if err != nil {
		return t, err
	}
	t.static = objects
	if err := k.dumpSets(table, &t); err != nil {
		return t, err
	}
	err = k.dumpChains(table, &t)
	slices.SortStableFunc(t.static, compareParts)
	return t, err
}

// compareParts sorts by kind and name; the rules of a chain keep their order.
func compareParts(a, b part) int { return cmp.Compare(a.object, b.object) }

// dumpObjects reads a table's named counters and returns what of them is static.
func (k *Kernel) dumpObjects(t *tableState) ([]part, error) {
	objects, err := k.read.GetNamedObjects(t.table)
	if err != nil {
		return nil, fmt.Errorf("list counters: %w", err)
	}
	var out []part
	for _, o := range objects {
		named, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		c, ok := named.Obj.(*expr.Counter)
		if !ok {
			out = append(out, part{object: "object " + named.Name})
			continue
		}
		out = append(out, counterPart(named.Name))
		t.counts.named[named.Name] = count{c.Packets, c.Bytes}
	}
	return out, nil
}

func (k *Kernel) dumpSets(table *nftables.Table, t *tableState) error {
	sets, err := k.read.GetSets(table)
	if err != nil {
		return fmt.Errorf("list sets: %w", err)
	}
	for _, s := range sets {
		s.Table = table
		t.static = append(t.static, part{object: "set " + s.Name, body: observedSet(s)})
		t.sets = append(t.sets, s)
		if err := k.dumpElements(s, t); err != nil {
			return err
		}
	}
	return nil
}

// dumpElements reads what is in a set, or what a dynamic one has counted.
func (k *Kernel) dumpElements(s *nftables.Set, t *tableState) error {
	elements, err := k.read.GetSetElements(s)
	if err != nil {
		return fmt.Errorf("list elements of set %s: %w", s.Name, err)
	}
	if s.Dynamic {
		t.counts.hits[s.Name] = observedHits(elements)
	} else {
		t.elements[s.Name] = observedElements(elements)
	}
	return nil
}

// observedHits reads the ports of a dynamic set, and what it has counted for them.
func observedHits(elements []nftables.SetElement) map[string]count {
	out := map[string]count{}
	for _, e := range elements {
		var c count
		if e.Counter != nil {
			c = count{e.Counter.Packets, e.Counter.Bytes}
		}
		out[string(e.Key)] = c
	}
	return out
}

func observedElements(elements []nftables.SetElement) map[filter.Element]bool {
	out := make(map[filter.Element]bool, len(elements))
	for _, e := range elements {
		out[filter.Element{From: string(e.Key), To: string(e.KeyEnd), Goto: target(e)}] = true
	}
	return out
}

func (k *Kernel) dumpChains(table *nftables.Table, t *tableState) error {
	chains, err := k.read.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != table.Name { // the listing is of the whole family
			continue
		}
		t.static = append(t.static, part{object: "chain " + c.Name, body: observedChain(c)})
		rules, err := k.read.GetRules(table, c)
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		for _, r := range rules {
			body, err := ruleBody(byte(table.Family), r.Exprs, r.UserData)
			if err != nil {
				return fmt.Errorf("read rule of chain %s: %w", c.Name, err)
			}
			t.static = append(t.static, part{object: "rule of chain " + c.Name, body: body})
		}
	}
	return nil
}

func observedChain(c *nftables.Chain) string {
	if c.Hooknum == nil {
		return ""
	}
	priority, policy := int32(0), nftables.ChainPolicyAccept
	if c.Priority != nil {
		priority = int32(*c.Priority)
	}
	if c.Policy != nil {
		policy = *c.Policy
	}
	return fmt.Sprintf("%s hook %d priority %d policy %d", c.Type, *c.Hooknum, priority, policy)
}

func observedSet(s *nftables.Set) string {
	return setBody(setShape{
		keyType: s.KeyType.GetNFTMagic(), keyLength: int(s.KeyType.Bytes), verdicts: s.IsMap, interval: s.Interval, dynamic: s.Dynamic,
		size: int(s.Size), odd: s.Anonymous || s.Constant || s.HasTimeout,
	})
}

// setShape is all of a set's declaration that we manage.
type setShape struct {
	keyType   uint32
	keyLength int
	verdicts  bool
	interval  bool
	dynamic   bool
	size      int
	odd       bool // has a property that none of ours has
}

func setBody(s setShape) string { return fmt.Sprintf("%+v", s) }

func counterPart(name string) part { return part{object: "counter " + name} }

// ruleBody writes a rule's expressions without what the kernel changes: counters' values and sets' numbers.
func ruleBody(family byte, exprs []expr.Any, userData []byte) (string, error) {
	var b strings.Builder
	for _, x := range exprs {
		switch e := x.(type) {
		case *expr.Counter:
			x = &expr.Counter{}
		case *expr.Lookup:
			plain := *e
			plain.SetID = 0
			x = &plain
		case *expr.Dynset:
			plain := *e
			plain.SetID, plain.Exprs = 0, slices.Clone(e.Exprs)
			for i, inner := range plain.Exprs {
				if _, counts := inner.(*expr.Counter); counts {
					plain.Exprs[i] = &expr.Counter{}
				}
			}
			x = &plain
		}
		data, err := expr.Marshal(family, x)
		if err != nil {
			return "", err
		}
		b.Write(data)
	}
	b.Write(userData)
	return b.String(), nil
}
