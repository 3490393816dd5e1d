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

// Source reads a document; the name is the one to report mistakes under.
type Source func(ctx context.Context) (name string, document []byte, err error)

// Wallet is the source of the demo model.
func Wallet(context.Context) (string, []byte, error) { return "wallet.yaml", wallet, nil }

// File returns the source that reads path each time.
func File(path string) Source {
	return func(context.Context) (string, []byte, error) {
		document, err := os.ReadFile(path)
		return path, document, err
	}
}

// Registry holds the model in use. Its methods may be called concurrently.
type Registry struct {
	source  Source
	current atomic.Pointer[Model]

	mu      sync.Mutex // held to change it
	changed chan struct{}
}

// Open reads and checks the model. The error is an [*Error] for a document with
// mistakes, else the source's.
func Open(ctx context.Context, source Source) (*Registry, error) {
	r := &Registry{source: source, changed: make(chan struct{})}
	if _, err := r.Reload(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// Current returns the model in use.
func (r *Registry) Current() *Model { return r.current.Load() }

// Reload reads the model again and reports whether it differs. On an error, as
// for [Open], the model in use stays.
func (r *Registry) Reload(ctx context.Context) (changed bool, err error) {
	name, document, err := r.source(ctx)
	if err != nil {
		return false, err
	}
	m, err := ParseContext(ctx, name, document)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.current.Swap(m); old != nil && old.Revision == m.Revision {
		return false, nil
	}
	close(r.changed)
	r.changed = make(chan struct{})
	return true, nil
}

// Changed returns a channel that is closed when the model in use changes next.
func (r *Registry) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
