package limit

import (
	"sync"
	"sync/atomic"
)

// A retry costs one token, and a call earns a tenth of a token, as in gRPC's retry throttling (gRFC A6). A bucket
// starts with 10 tokens and holds at most 100, so that at most 100 calls are retried together when a node fails. Tokens
// are counted in tenths.
const (
	retryCost     = 10
	callEarning   = 1
	initialTokens = 10 * retryCost
	maxTokens     = 100 * retryCost
)

// retryTokens is a token bucket of retries. The zero value holds the initial tokens.
type retryTokens struct{ tenths atomic.Int64 } // earned less spent, beyond the initial tokens

func (s *retryTokens) deposit() {
	for {
		earned := s.tenths.Load()
		if initialTokens+earned+callEarning > maxTokens || s.tenths.CompareAndSwap(earned, earned+callEarning) {
			return
		}
	}
}

func (s *retryTokens) spend() bool {
	for {
		earned := s.tenths.Load()
		if initialTokens+earned < retryCost {
			return false
		}
		if s.tenths.CompareAndSwap(earned, earned-retryCost) {
			return true
		}
	}
}

// Retries is the retry budget of the nodes, by endpoint: it permits retries as a share of the
// calls, so that a failing node receives at most a tenth more calls.
type Retries struct {
	endpoints sync.Map // endpoint → *retryTokens
	count     atomic.Int64
}

// trackedEndpoints bounds the endpoints with a bucket.
const trackedEndpoints = 4096

// NewRetries returns a retry budget with full initial tokens for every endpoint.
func NewRetries() *Retries { return &Retries{} }

// Call counts a call to the endpoint, which earns retry tokens.
func (b *Retries) Call(endpoint string) { b.of(endpoint).deposit() }

// Retry reports whether a call may be retried at the endpoint, and spends a token if so.
func (b *Retries) Retry(endpoint string) bool { return b.of(endpoint).spend() }

func (b *Retries) of(endpoint string) *retryTokens {
	if found, ok := b.endpoints.Load(endpoint); ok {
		return found.(*retryTokens)
	}
	if b.count.Load() >= trackedEndpoints {
		b.endpoints.Clear() // the set of nodes has changed often; all buckets restart
		b.count.Store(0)
	}
	found, known := b.endpoints.LoadOrStore(endpoint, &retryTokens{})
	if !known {
		b.count.Add(1)
	}
	return found.(*retryTokens)
}
