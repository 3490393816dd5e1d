package projection

import (
	"context"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// sharedPlans and sharedPerPlan bound the rows that are shared.
	sharedPlans   = 16
	sharedPerPlan = 1024
)

// sharedRows are rows as one watcher has read them, for the others that watch the same
// view with the same filter and fields: a change is read once, not once for each of a
// thousand watchers. It may be used concurrently.
type sharedRows struct{ plans *lru.Cache[string, *planRows] }

// planRows are the rows of one view, filter and choice of fields.
type planRows struct {
	turn chan struct{} // holds a value while somebody looks and reads; the others then find what was read
	rows *lru.Cache[string, sharedRow]
}

// sharedRow is a row, nil if there is none that fits, as it was at a journal sequence.
type sharedRow struct {
	row  *structpb.Struct
	asOf uint64
}

func newSharedRows() *sharedRows {
	plans, err := lru.New[string, *planRows](sharedPlans)
	if err != nil {
		panic(err) // the bound is a positive constant
	}
	return &sharedRows{plans: plans}
}

// plan returns the rows that are shared by watchers of the same view, filter and fields.
func (s *sharedRows) plan(view, filter string, fields []string) *planRows {
	key := fmt.Sprintf("%q %q %q", view, filter, fields)
	if p, ok := s.plans.Get(key); ok {
		return p
	}
	rows, err := lru.New[string, sharedRow](sharedPerPlan)
	if err != nil {
		panic(err) // the bound is a positive constant
	}
	fresh := &planRows{turn: make(chan struct{}, 1), rows: rows}
	if p, ok, _ := s.plans.PeekOrAdd(key, fresh); ok {
		return p
	}
	return fresh
}

// find returns the rows under keys, each as it was at the sequence of its last change
// or later. What nobody has read since, read returns, with the sequence that it was read
// at.
func (p *planRows) find(ctx context.Context, keys []string, changed map[string]uint64, read func(ctx context.Context, keys []string) (map[string]*structpb.Struct, uint64, error)) (map[string]*structpb.Struct, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.turn }()
	found := make(map[string]*structpb.Struct, len(keys))
	var missing []string
	for _, key := range keys {
		if shared, ok := p.rows.Get(key); ok && shared.asOf >= changed[key] {
			found[key] = shared.row
		} else {
			missing = append(missing, key)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	fresh, asOf, err := read(ctx, missing)
	if err != nil {
		return nil, err
	}
	for _, key := range missing {
		found[key] = fresh[key]
		p.rows.Add(key, sharedRow{fresh[key], asOf})
	}
	return found, nil
}
