package contextkit

import "context"

// Carry returns ctx carrying a value, under its type: [Carried] finds it. It makes one
// object, where context.WithValue makes two; a call has several such values.
func Carry[V any](ctx context.Context, value V) context.Context { return &carrier[V]{ctx, value} }

// carryEmpty is Carry for a value that is filled in before anybody asks for it.
func carryEmpty[V any](ctx context.Context) (context.Context, *V) {
	c := &carrier[V]{Context: ctx}
	return c, &c.value
}

// Carried returns the innermost value of the type V that ctx carries, if there is one.
func Carried[V any](ctx context.Context) (value V, ok bool) {
	if carried := find[V](ctx); carried != nil {
		return *carried, true
	}
	return value, false
}

// find is Carried without a copy, nil if there is none: what it returns is not changed.
func find[V any](ctx context.Context) *V {
	if c, ok := ctx.Value(carrierKey[V]{}).(*carrier[V]); ok {
		return &c.value
	}
	return nil
}

type carrierKey[V any] struct{}

type carrier[V any] struct {
	context.Context //nolint:containedctx // it is one

	value V
}

// Value implements [context.Context].
func (c *carrier[V]) Value(key any) any {
	if key == (carrierKey[V]{}) {
		return c
	}
	return c.Context.Value(key)
}
