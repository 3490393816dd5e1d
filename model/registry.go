package model

import (
	"context"
	_ "embed" // the demo model
	"os"
	"sync"
	"sync/atomic"
)

//go:embed wallet.yaml
var wallet []byte

// Source reads a document; name identifies it in mistakes.
type Source func(ctx context.Context) (name string, document []byte, err error)

// Wallet is the source of the demo model.
func Wallet(context.Context) (string, []byte, error) { return "wallet.yaml", wallet, nil }

// File returns a source that reads path on each call.
func File(path string) Source {
	return func(context.Context) (string, []byte, error) {
		document, err := os.ReadFile(path)
		return path, document, err
	}
}

// Place returns the place of a model of a source, see [Model.Order].
type Place func(ctx context.Context, m *Model) (order uint64, fromFile bool, err error)

// Registry holds the model in use. Its methods may be called concurrently.
type Registry struct {
	source  Source
	place   Place // nil: the order of models is unknown
	current atomic.Pointer[Model]

	mu      sync.Mutex // held to change it
	changed chan struct{}
}

// Open reads and checks the model. The error is an [*Error] for a document with mistakes, else the source's.
func Open(ctx context.Context, source Source) (*Registry, error) {
	return OpenPlaced(ctx, source, nil)
}

// OpenPlaced is [Open] for models with an order; place is called for each model of the source.
func OpenPlaced(ctx context.Context, source Source, place Place) (*Registry, error) {
	r := &Registry{source: source, place: place, changed: make(chan struct{})}
	if _, err := r.Reload(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Current returns the model in use.
func (r *Registry) Current() *Model { return r.current.Load() }

// Reload reads the model again and reports whether it differs. On an error, as for [Open], the model in use stays.
func (r *Registry) Reload(ctx context.Context) (changed bool, err error) {
	name, document, err := r.source(ctx)
	if err != nil {
		return false, err
	}
	m, err := ParseStored(ctx, name, document) // checks of later versions are for authors of models
	if err != nil {
		return false, err
	}
	if r.place != nil {
		if m.Order, m.FromFile, err = r.place(ctx, m); err != nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.current.Load(); old != nil && (old.Revision == m.Revision || !old.FromFile && m.Order < old.Order) {
		return false, nil
	}
	r.use(m)
	return true, nil
}

// use makes m the model in use. The caller holds r.mu.
func (r *Registry) use(m *Model) {
	r.current.Store(m)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Apply uses a document that was applied as the order-th change of the platform's models, unless a later one is in
// use, and reports whether the model in use has changed. On an error, as for [Open], the model in use stays.
func (r *Registry) Apply(ctx context.Context, name string, document []byte, order uint64) (changed bool, err error) {
	current := r.Current()
	if order < current.Order {
		return false, nil
	}
	m := current
	if current.Text != string(document) {
		if m, err = ParseContext(ctx, name, document); err != nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.current.Load()
	if order < old.Order {
		return false, nil
	}
	applied := *m
	applied.Order, applied.FromFile = order, false
	if old.Revision == m.Revision {
		r.current.Store(&applied) // the same rules, at a later place
		return false, nil
	}
	r.use(&applied)
	return true, nil
}

// Changed returns a channel that is closed when the model in use changes next.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
