package contextkit

import "context"

// Carry returns ctx carrying a value, under its type: [Carried] finds it. It makes one
// object, where context.WithValue makes two; a call has several such values.
func Carry[V any](ctx context.Context, value V) context.Context { return &carrier[V]{ctx, value} }

// Carried returns the innermost value of the type V that ctx carries, if there is one.
func Carried[V any](ctx context.Context) (value V, ok bool) {
	if c, ok := ctx.Value(carrierKey[V]{}).(*carrier[V]); ok {
		return c.value, true
	}
	return value, false
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
