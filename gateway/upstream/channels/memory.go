package channels

import "google.golang.org/grpc/mem"

// Meter bounds the memory of a call's messages. The connection's reader calls Reserve before
// it allocates memory for a message, so Reserve must not block: an error resets the call's
// stream. Release is called when memory is freed. Both are safe for concurrent use.
type Meter interface {
	Reserve(bytes int64) error
	Release(bytes int64)
}

// Memory allocates a stream's messages from a pool and meters them. It is also the pool to which
// the buffer of a received message is returned.
type Memory struct {
	Pool  mem.BufferPool
	Meter Meter // nil: not metered
}

// Take allocates memory. Error: [*MeterError].
func (m *Memory) Take(size int) (*[]byte, error) {
	if m.Meter != nil {
		if err := m.Meter.Reserve(int64(size)); err != nil {
			return nil, &MeterError{err}
		}
	}
	return m.Pool.Get(size), nil
}

// Buffer returns memory that Take allocated as a buffer, which returns it when it is freed.
func (m *Memory) Buffer(bytes *[]byte) mem.Buffer {
	if mem.IsBelowBufferPoolingThreshold(cap(*bytes)) && m.Meter != nil {
		m.Meter.Release(int64(len(*bytes))) // such a buffer is not returned to the pool
	}
	return mem.NewBuffer(bytes, m)
}

// Get implements [mem.BufferPool]; [Memory.Take] is metered.
func (m *Memory) Get(size int) *[]byte { return m.Pool.Get(size) }

// Put implements [mem.BufferPool].
func (m *Memory) Put(bytes *[]byte) {
	if m.Meter != nil {
		m.Meter.Release(int64(len(*bytes)))
	}
	m.Pool.Put(bytes)
}
