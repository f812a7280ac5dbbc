package nft

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/bladenet/bladenet/policy/filter"
)

// Counters are what our tables have counted since they were made. They survive every change to elements and the replacement of
// a table; they end with the namespace.
type Counters struct {
	Reasons map[filter.Reason]Counter            // drops, by reason
	Ports   map[string]map[filter.Reason]Counter // drops, by port (the one a packet came from and the one it was for) and reason
	Rules   map[string]Counter                   // first packets that a policy rule let through, by its name
}

// Counter counts packets and their bytes.
type Counter struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Counters reads the counters. They are read one after the other while packets go on.
func (k *Kernel) Counters(ctx context.Context) (Counters, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	state, err := k.observe(ctx)
	if err != nil {
		return Counters{}, err
	}
	out := Counters{Reasons: map[filter.Reason]Counter{}, Ports: map[string]map[filter.Reason]Counter{}, Rules: map[string]Counter{}}
	for _, t := range state.tables {
		for name, c := range t.counts.named {
			out.Reasons[filter.Reason(name)] = sum(out.Reasons[filter.Reason(name)], c)
		}
		for set, hits := range t.counts.hits {
			reason, counted := filter.HitReason(set)
			if !counted {
				continue
			}
			for key, c := range hits {
				port := string(bytes.TrimRight([]byte(key), "\x00"))
				if port == "" {
					continue // at prerouting a packet is for no port yet
				}
				if out.Ports[port] == nil {
					out.Ports[port] = map[filter.Reason]Counter{}
				}
				out.Ports[port][reason] = sum(out.Ports[port][reason], c)
			}
		}
	}
	if _, ok := state.tables[tableName{filter.Bridge, filter.BridgeTable}]; !ok {
		return out, nil
	}
	return out, k.countRules(out.Rules)
}

func sum(c Counter, more count) Counter {
	return Counter{Packets: c.Packets + more.packets, Bytes: c.Bytes + more.bytes}
}

// countRules reads the counters of the policy's rules, both families and both ways together.
func (k *Kernel) countRules(out map[string]Counter) error {
	table := &nftables.Table{Name: filter.BridgeTable, Family: nftables.TableFamilyBridge}
	for _, chain := range []string{filter.RulesChain, filter.RulesBackChain} {
		rules, err := k.read.GetRules(table, &nftables.Chain{Name: chain, Table: table})
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", chain, err)
		}
		for _, r := range rules {
			name := ruleComment(r.UserData)
			for _, x := range r.Exprs {
				if c, ok := x.(*expr.Counter); ok {
					out[name] = sum(out[name], count{c.Packets, c.Bytes})
				}
			}
		}
	}
	return nil
}

func ruleComment(userData []byte) string {
	if len(userData) < 2 || userData[0] != udataRuleComment || len(userData) < 2+int(userData[1]) {
		return ""
	}
	return string(bytes.TrimRight(userData[2:2+int(userData[1])], "\x00"))
}
