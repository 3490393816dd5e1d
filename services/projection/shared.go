package projection

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/types/known/structpb"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/response"
)

const (
	// sharedPlans bounds the plans whose rows are shared; sharedPerPlan and sharedBytes bound the rows of each plan.
	sharedPlans   = 16
	sharedPerPlan = 1024
	sharedBytes   = 2 << 20
)

// sharedRows caches rows that one watcher has read for other watchers of the same view, filter and fields, so that a
// change is read once and not once per watcher. The zero value has no rows. It may be used concurrently.
type sharedRows struct {
	once    sync.Once // creates plans
	plans   *lru.Cache[string, *planRows]
	node    *nodeKeys   // nil: a node without other tenants
	matched *tenantKeys // of all filters
}

// planRows are the cached rows of one view, filter and list of fields.
type planRows struct {
	// turn is a mutex (holds a value while locked): one watcher looks up and reads rows, and the others find them
	turn chan struct{}
	rows *lru.Cache[string, sharedRow]

	bytes int // of rows; only the holder of the turn accesses it

	matched *matchedKeys // nil: there is no filter
}

// sharedRow is a row at a journal sequence, with its size in bytes. row is nil if the row does not exist or does not
// match the filter.
type sharedRow struct {
	row  *structpb.Struct
	size int
	asOf uint64
}

// store adds a row, and evicts the least recently used rows beyond the bound. The caller holds the turn.
func (p *planRows) store(key string, row sharedRow) {
	if old, ok := p.rows.Peek(key); ok {
		p.bytes -= cost(key, old)
		p.rows.Remove(key)
	}
	if p.rows.Len() == sharedPerPlan {
		p.clear()
	}
	p.rows.Add(key, row)
	p.bytes += cost(key, row)
	for p.bytes > sharedBytes {
		p.clear()
	}
}

func (p *planRows) clear() {
	if key, old, ok := p.rows.RemoveOldest(); ok {
		p.bytes -= cost(key, old)
	}
}

// cost estimates the memory of a shared row.
func cost(key string, row sharedRow) int { return len(key) + keyBytes + row.size }

// plan returns the rows that watchers of the same view, filter and fields share.
func (s *sharedRows) plan(view, filter string, fields []string) *planRows {
	s.once.Do(func() {
		var err error
		if s.plans, err = lru.New[string, *planRows](sharedPlans); err != nil {
			panic(err) // the bound is a positive constant
		}
		s.matched = &tenantKeys{node: cmp.Or(s.node, &nodeKeys{})}
	})
	key := fmt.Sprintf("%q %q %q", view, filter, fields)
	if p, ok := s.plans.Get(key); ok {
		return p
	}
	rows, err := lru.New[string, sharedRow](sharedPerPlan)
	if err != nil {
		panic(err) // the bound is a positive constant
	}
	fresh := &planRows{turn: make(chan struct{}, 1), rows: rows}
	if strings.TrimSpace(filter) != "" {
		fresh.matched = newMatchedKeys(s.matched)
	}
	if p, ok, _ := s.plans.PeekOrAdd(key, fresh); ok {
		return p
	}
	return fresh
}

// readRows reads the rows with the sorted keys until page is full. It returns the rows, the sequence at which they
// were read, and the number of keys that they cover, at least one.
type readRows func(
	ctx context.Context, keys []string, page response.Page,
) (rows map[string]sharedRow, asOf uint64, read int, err error)

// find returns the changes of the first of the sorted keys, until page is full, at least one. Each row is as of its
// last change or later. find calls read for rows that no watcher has read since then.
func (p *planRows) find(
	ctx context.Context, keys []string, changed map[string]uint64, page *response.Page, read readRows,
) ([]*projectionv1.Change, error) {
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.turn }()
	found := make(map[string]sharedRow, len(keys))
	var missing []string
	for _, key := range keys {
		if shared, ok := p.rows.Get(key); ok && shared.asOf >= changed[key] {
			found[key] = shared
		} else {
			missing = append(missing, key)
		}
	}
	if len(missing) > 0 {
		fresh, asOf, count, err := read(ctx, missing, *page)
		if err != nil {
			return nil, err
		}
		for _, key := range missing[:count] {
			row := fresh[key]
			row.asOf = asOf
			found[key] = row
			p.store(key, row)
		}
	}
	changes := make([]*projectionv1.Change, 0, len(found))
	for _, key := range keys {
		row, ok := found[key]
		if !ok || !page.Add(changeSize(key, row)) {
			break
		}
		changes = append(changes, &projectionv1.Change{Key: key, Row: row.row})
	}
	return changes, nil
}

// changeSize returns the bytes of a change.
func changeSize(key string, row sharedRow) int {
	size := response.Item(len(key))
	if row.row != nil {
		size += response.Item(row.size)
	}
	return size
}
