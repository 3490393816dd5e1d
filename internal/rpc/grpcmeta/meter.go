package grpcmeta

// Meter bounds the memory of a call's answers. Reserve is called before memory for a message
// is allocated, and must not block: its error ends that call only. Release is called when
// memory is freed, at most once for each reservation. Both are safe for concurrent use.
type Meter interface {
	Reserve(bytes int64) error
	Release(bytes int64)
}

// Metered is implemented by the header of a call whose answers have a meter.
type Metered interface {
	AnswerMeter() Meter
}

// MeterOf returns the meter of a header's call, or a meter without bounds if it has none.
func MeterOf(header any) Meter {
	if metered, ok := header.(Metered); ok {
		return metered.AnswerMeter()
	}
	return unbounded{}
}

type unbounded struct{}

func (unbounded) Reserve(int64) error { return nil }

func (unbounded) Release(int64) {}
