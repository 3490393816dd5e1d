package rpc

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"
)

// Layer is a group of parts of a process that end together. Each part runs until its context ends.
type Layer []func(ctx context.Context) error

// RunLayers runs all layers concurrently until ctx ends or a part fails, then ends
// them one after the other, in order, each waiting for the one before: what
// calls others ends before what is called. It returns every part's error.
func RunLayers(ctx context.Context, layers ...Layer) error {
	failing, fail := context.WithCancel(ctx)
	defer fail()
	base := context.WithoutCancel(ctx)
	stops := make([]context.CancelFunc, len(layers))
	groups := make([]*errgroup.Group, len(layers))
	for i, layer := range layers {
		layerCtx, stop := context.WithCancel(base)
		stops[i], groups[i] = stop, new(errgroup.Group)
		for _, part := range layer {
			groups[i].Go(func() error {
				err := part(layerCtx)
				if layerCtx.Err() == nil {
					fail() // a part that ends by itself ends the process
				}
				return err
			})
		}
	}
	<-failing.Done()
	var errs []error
	for i := range layers {
		stops[i]()
		errs = append(errs, groups[i].Wait())
	}
	return errors.Join(errs...)
}
