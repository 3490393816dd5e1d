package grpcmeta

// Meter bounds the memory of a call's answers. Reserve is called before a message takes
// memory, and must not wait: its error ends the call, and only that. Release is called when
// memory is given back, at most once for what was reserved. Both are safe for concurrent use.
type Meter interface {
	Reserve(bytes int64) error
	Release(bytes int64)
}

// Metered is a header of a call whose answers have a meter.
type Metered interface {
	AnswerMeter() Meter
}

// MeterOf returns the meter of a header's call, one without bounds if it has none.
func MeterOf(header any) Meter {
	if metered, ok := header.(Metered); ok {
		return metered.AnswerMeter()
	}
	return unbounded{}
}

type unbounded struct{}

func (unbounded) Reserve(int64) error { return nil }

func (unbounded) Release(int64) {}
