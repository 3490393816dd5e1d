package h2

import "google.golang.org/grpc/mem"

// Meter bounds the memory of a call's messages. The connection's reader calls Reserve before
// it allocates memory for a message, so Reserve must not block: an error resets the call's
// stream. Release is called when memory is freed. Both are safe for concurrent use.
type Meter interface {
	Reserve(bytes int64) error
	Release(bytes int64)
}

// memory allocates a stream's messages from a pool and meters them. It is also the pool to which
// the buffer of a received message is returned.
type memory struct {
	pool  mem.BufferPool
	meter Meter // nil: not metered
}

// take allocates memory. Error: [*MeterError].
func (m *memory) take(size int) (*[]byte, error) {
	if m.meter != nil {
		if err := m.meter.Reserve(int64(size)); err != nil {
			return nil, &MeterError{err}
		}
	}
	return m.pool.Get(size), nil
}

// received releases the metered bytes of a received message whose buffer is not returned to
// the pool.
func (m *memory) received(size int) {
	if m.meter != nil {
		m.meter.Release(int64(size))
	}
}

// Get implements [mem.BufferPool]; [memory.take] is metered.
func (m *memory) Get(size int) *[]byte { return m.pool.Get(size) }

// Put implements [mem.BufferPool].
func (m *memory) Put(bytes *[]byte) {
	if m.meter != nil {
		m.meter.Release(int64(len(*bytes)))
	}
	m.pool.Put(bytes)
}
