package h2

import "google.golang.org/grpc/mem"

// Meter bounds the memory of a call's messages. The connection's reader calls Reserve
// before it takes memory for a message, and must not wait for it: an error resets the
// call's stream. Release is called when memory is given back. Both are safe for concurrent
// use.
type Meter interface {
	Reserve(bytes int64) error
	Release(bytes int64)
}

// memory is what a stream's messages lie in: a pool whose use is metered. A buffer that has
// left the stream gives its memory back to it.
type memory struct {
	pool  mem.BufferPool
	meter Meter // nil: none
}

// take returns memory of a size. Error: [*MeterError].
func (m *memory) take(size int) (*[]byte, error) {
	if m.meter != nil {
		if err := m.meter.Reserve(int64(size)); err != nil {
			return nil, &MeterError{err}
		}
	}
	return m.pool.Get(size), nil
}

// received releases what a message took that has left the stream, and whose memory the
// pool will not see again.
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
