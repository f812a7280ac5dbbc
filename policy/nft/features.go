package nft

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/bladenet/bladenet/policy/filter"
)

// probeTable is made and deleted within one batch: nobody ever sees it.
const probeTable = "bladenet_probe"

// feature is something that the rules need of the kernel, and the rule that shows it.
type feature struct {
	needs  string // kernel module
	on     string // the module below it: without that one, it is not tried
	does   string
	family filter.Family
	rule   filter.Rule
}

func statements(s ...filter.Statement) filter.Rule { return filter.Rule{Statements: s} }

func features() []feature {
	accept := filter.Decide{Kind: filter.Accept}
	name := make([]byte, 16)
	copy(name, "none")
	count := filter.Meter{Field: filter.EtherSource, Set: "senders", Connections: 1}
	established := filter.Match{Field: filter.ConnState, Value: []byte{2, 0, 0, 0}}
	return []feature{
		{"nf_tables", "", "rules in the bridge family", filter.Bridge, statements(accept)},
		{"nft_meta_bridge", "nf_tables", "meta ibrname in the bridge family", filter.Bridge, statements(filter.Match{Field: filter.InBridge, Value: name}, accept)},
		{"nft_ct", "nf_tables", "notrack in the bridge family", filter.Bridge, statements(filter.Notrack{})},
		{"nf_conntrack_bridge", "nft_ct", "ct state in the bridge family", filter.Bridge, statements(established, accept)},
		{"nft_limit", "nf_tables", "limit in the bridge family", filter.Bridge, statements(filter.Limit{PerSecond: 1, Burst: 1}, accept)},
		{"nft_connlimit", "nf_conntrack_bridge", "ct count in the bridge family", filter.Bridge, statements(count, accept)},
		{"nft_ct", "nft_ct", "ct state in the inet family", filter.Inet, statements(established, accept)},
	}
}

// Features tries what the rules and links need of the kernel, one thing after the other, and says for each that is missing which
// module has it; what is built on something that is missing is not tried. It leaves nothing behind.
func (k *Kernel) Features(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var missing []error
	absent := map[string]bool{}
	for _, f := range features() {
		if absent[f.on] {
			absent[f.needs] = true
			continue
		}
		if err := k.probe(ctx, f); err != nil {
			absent[f.needs] = true
			missing = append(missing, needs(f.needs, f.does, err))
		}
	}
	if err := probeLinks(); err != nil {
		missing = append(missing, needs("8021q", "a VLAN link", err))
	}
	return errors.Join(missing...)
}

func needs(module, what string, err error) error {
	return fmt.Errorf("%s: %w: needs %s: modprobe %s; on Debian linux-image-amd64 and linux-image-cloud-amd64 have it", what, err, module, module)
}

func (k *Kernel) probe(ctx context.Context, f feature) error {
	b := newBatch()
	e := newEncoder(b, filter.Table{Family: f.family, Name: probeTable})
	chain := filter.Chain{Name: "probe"}
	e.tableMessage(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add probe table")
	for _, s := range f.rule.Statements {
		if m, ok := s.(filter.Meter); ok {
			e.set(filter.Set{Name: m.Set, Key: []filter.Field{m.Field}, Dynamic: true, Metered: true, Size: 1}, 1)
		}
	}
	e.chain(chain)
	if err := e.rule(chain, f.rule); err != nil {
		return err
	}
	e.tableMessage(unix.NFT_MSG_DELTABLE, 0, "delete probe table")
	return k.send.send(ctx, b)
}

// probeLinks makes a bridge and a VLAN link in a namespace that ends with its thread.
func probeLinks() error {
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread, and the namespace with it, ends with the goroutine.
		runtime.LockOSThread()
		result <- makeLinks()
	}()
	return <-result
}

func makeLinks() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make namespace: %w", err)
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	vlan := netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "probe.5", ParentIndex: bridge.Index}, VlanId: 5, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	if err := netlink.LinkAdd(&vlan); err != nil {
		return fmt.Errorf("add VLAN: %w", err)
	}
	return nil
}
