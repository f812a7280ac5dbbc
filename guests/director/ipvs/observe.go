package ipvs

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Observe reads the whole table, services sorted by key.
func (k *Kernel) Observe(ctx context.Context) (Table, error) {
	var t Table
	err := k.with(func(s *socket) error {
		err := s.dump(ctx, getService, nil, func(attributes []byte) error {
			v, err := decodeService(attributes)
			t.Services = append(t.Services, v)
			return err
		})
		if err != nil {
			return err
		}
		for i := range t.Services {
			v := &t.Services[i]
			err := s.dump(ctx, getDestination, func(m *messages) { m.service(*v) }, func(attributes []byte) error {
				d, err := decodeDestination(attributes, v.IPv6)
				v.Destinations = append(v.Destinations, d)
				return err
			})
			if err != nil {
				return fmt.Errorf("servers of %s: %w", v.Key, err)
			}
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
