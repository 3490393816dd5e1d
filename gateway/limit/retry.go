package limit

import (
	"sync"
	"sync/atomic"
)

// A call earns a tenth of a retry. Ten are there from the start, and a hundred may be
// saved up for the moment when a node that many calls wait for is given up. Counted in
// tenths.
const (
	retryPrice   = 10
	callEarns    = 1
	firstSavings = 10 * retryPrice
	mostSavings  = 100 * retryPrice
)

// savings are what calls have earned. The zero value has the first savings.
type savings struct{ earned atomic.Int64 } // less what was spent

func (s *savings) earn() {
	for {
		earned := s.earned.Load()
		if firstSavings+earned+callEarns > mostSavings || s.earned.CompareAndSwap(earned, earned+callEarns) {
			return
		}
	}
}

func (s *savings) spend() bool {
	for {
		earned := s.earned.Load()
		if firstSavings+earned < retryPrice {
			return false
		}
		if s.earned.CompareAndSwap(earned, earned-retryPrice) {
			return true
		}
	}
}

// Retries permits retries as a share of the calls: a failing node gets at most a tenth more
// calls, not a multiple.
type Retries struct {
	endpoints sync.Map // endpoint → *savings
	count     atomic.Int64
}

// trackedEndpoints bounds the endpoints whose savings are known.
const trackedEndpoints = 4096

// NewRetries returns retries with the initial savings for every endpoint.
func NewRetries() *Retries { return &Retries{} }

// Call counts a call to the endpoint.
func (b *Retries) Call(endpoint string) { b.of(endpoint).earn() }

// Retry reports whether the endpoint may be called once more for the same call.
func (b *Retries) Retry(endpoint string) bool { return b.of(endpoint).spend() }

func (b *Retries) of(endpoint string) *savings {
	if found, ok := b.endpoints.Load(endpoint); ok {
		return found.(*savings)
	}
	if b.count.Load() >= trackedEndpoints {
		b.endpoints.Clear() // nodes have come and gone; all start anew
		b.count.Store(0)
	}
	found, known := b.endpoints.LoadOrStore(endpoint, &savings{})
	if !known {
		b.count.Add(1)
	}
	return found.(*savings)
}
