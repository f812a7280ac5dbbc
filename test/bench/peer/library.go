package peer

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Library holds one table in google/nftables' own types, as it was read from a kernel, to write it again with that library.
type Library struct {
	conn     *nftables.Conn
	table    *nftables.Table
	sets     []*nftables.Set
	elements map[string][]nftables.SetElement
	counters []nftables.Obj
	chains   []*nftables.Chain
	rules    []*nftables.Rule
}

// elementsAtOnce keeps a message of elements below 64 KiB, which its attribute's length can say.
const elementsAtOnce = 900

// OpenLibrary connects to the nftables of the calling thread's namespace, as a program that knows the library's pits would:
// one lasting connection with large buffers.
func OpenLibrary() (*Library, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *mdl.Conn) error {
		if err := c.SetWriteBuffer(64 << 20); err != nil {
			return err
		}
		return c.SetReadBuffer(64 << 20)
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &Library{conn: conn, elements: map[string][]nftables.SetElement{}}, nil
}

// Close ends the connection.
func (l *Library) Close() error { return l.conn.CloseLasting() }

// Read takes over a table of the bridge family from the kernel.
func (l *Library) Read(name string) error {
	const family = nftables.TableFamilyBridge
	tables, err := l.conn.ListTablesOfFamily(family)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == name })
	if at < 0 {
		return fmt.Errorf("read table %s: not there", name)
	}
	l.table = tables[at]
	if l.counters, err = l.conn.GetObjects(l.table); err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	if l.sets, err = l.conn.GetSets(l.table); err != nil {
		return fmt.Errorf("read sets: %w", err)
	}
	for _, s := range l.sets {
		elements, err := l.conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("read elements of %s: %w", s.Name, err)
		}
		for i := range elements {
			if s.IsMap {
				elements[i].VerdictData, elements[i].Val = verdict(elements[i]), nil
			}
		}
		l.elements[s.Name] = elements
		if s.Interval {
			s.KeyType = spelled(s.KeyType)
		}
	}
	return l.readChains(family)
}

func (l *Library) readChains(family nftables.TableFamily) error {
	chains, err := l.conn.ListChainsOfTableFamily(family)
	if err != nil {
		return fmt.Errorf("read chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != l.table.Name {
			continue
		}
		c.Table = l.table
		l.chains = append(l.chains, c)
		rules, err := l.conn.GetRules(l.table, c)
		if err != nil {
			return fmt.Errorf("read rules of %s: %w", c.Name, err)
		}
		for _, r := range rules {
			r.Handle, r.Position, r.Chain = 0, 0, c
			l.rules = append(l.rules, r)
		}
	}
	return nil
}

// spelled writes a concatenation with an integer of sixteen bytes as one with an IPv6 address: the library takes every integer for one
// of four.
func spelled(t nftables.SetDatatype) nftables.SetDatatype {
	parts := nftables.ConcatSetTypeElements(t)
	for i, p := range parts {
		if p.Name == nftables.TypeInteger.Name {
			parts[i] = nftables.TypeIP6Addr
		}
	}
	return nftables.MustConcatSetType(parts...)
}

// verdict decodes a map element's value, which the library hands over as it came.
func verdict(e nftables.SetElement) *expr.Verdict {
	out := &expr.Verdict{Kind: expr.VerdictGoto}
	d, err := mdl.NewAttributeDecoder(e.Val)
	if err != nil {
		return out
	}
	for d.Next() {
		if d.Type() == unix.NFTA_VERDICT_CHAIN {
			out.Chain = d.String()
		}
	}
	return out
}

// Replace writes the whole table anew in one transaction.
func (l *Library) Replace() error {
	c := l.conn
	c.AddTable(l.table)
	c.DelTable(l.table)
	c.AddTable(l.table)
	for _, o := range l.counters {
		c.AddObj(o)
	}
	for _, chain := range l.chains {
		c.AddChain(chain)
	}
	for _, s := range l.sets {
		again := *s
		again.ID, again.Table = 0, l.table
		if err := c.AddSet(&again, nil); err != nil {
			return fmt.Errorf("add set %s: %w", s.Name, err)
		}
		if s.Dynamic {
			continue
		}
		for part := range slices.Chunk(l.elements[s.Name], elementsAtOnce) {
			if err := c.SetAddElements(&again, part); err != nil {
				return fmt.Errorf("add elements to %s: %w", s.Name, err)
			}
		}
	}
	for _, r := range l.rules {
		again := *r // the library fills the rule's handle in, and would then look for it in the new table
		c.AddRule(&again)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("send table: %w", err)
	}
	return nil
}

// Load makes a copy of a set with all its elements in one call, returns how many the kernel then holds, and deletes it.
func (l *Library) Load(set string) (stored int, err error) {
	at := slices.IndexFunc(l.sets, func(s *nftables.Set) bool { return s.Name == set })
	if at < 0 {
		return 0, fmt.Errorf("load set %s: not there", set)
	}
	table := &nftables.Table{Family: l.table.Family, Name: l.table.Name + "_copy"}
	l.conn.AddTable(table)
	copied := *l.sets[at]
	copied.ID, copied.Table = 0, table
	defer func() {
		l.conn.DelTable(table)
		if failed := l.conn.Flush(); failed != nil && err == nil {
			err = failed
		}
	}()
	if err := l.conn.AddSet(&copied, l.elements[set]); err != nil {
		return 0, fmt.Errorf("load set %s: %w", set, err)
	}
	if err := l.conn.Flush(); err != nil {
		return 0, fmt.Errorf("load set %s: %w", set, err)
	}
	held, err := l.conn.GetSetElements(&copied)
	return len(held), err
}

// Count is how many elements a set had when it was read.
func (l *Library) Count(set string) int { return len(l.elements[set]) }
