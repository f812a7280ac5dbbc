package ipvs

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	lib "github.com/moby/ipvs"
)

// Observe reads the whole table, services sorted by key.
func (k *Kernel) Observe(ctx context.Context) (Table, error) {
	var t Table
	err := k.do(ctx, opTimeout, func(_ context.Context, h *lib.Handle) error {
		services, err := h.GetServices()
		if err != nil {
			return err
		}
		for _, e := range services {
			s, err := decodeService(e)
			if err != nil {
				return err
			}
			dests, err := h.GetDestinations(e)
			if err != nil {
				return fmt.Errorf("servers of %s: %w", s.Key, err)
			}
			for _, e := range dests {
				d, err := decodeDestination(e)
				if err != nil {
					return fmt.Errorf("servers of %s: %w", s.Key, err)
				}
				s.Destinations = append(s.Destinations, d)
			}
			t.Services = append(t.Services, s)
		}
		return nil
	})
	if err != nil {
		return Table{}, fmt.Errorf("observe ipvs: %w", err)
	}
	slices.SortFunc(t.Services, func(a, b Service) int { return compareKeys(a.Key, b.Key) })
	return t, nil
}

func compareKeys(a, b Key) int {
	return cmp.Or(
		cmp.Compare(a.Mark, b.Mark), a.Address.Compare(b.Address),
		cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port),
	)
}
