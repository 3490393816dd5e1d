package audit

import (
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// callerRate and callerBurst bound the recorded denials, or reads, of one caller, per second
	// and as a burst; accountRate and accountBurst bound those of one account.
	callerRate, callerBurst   = 10, 200
	accountRate, accountBurst = 100, 2000
	// writeFactor multiplies these bounds for an operator's other calls.
	writeFactor = 10
	// trackedCallers and trackedAccounts bound the tracked rates. The rate of an evicted caller
	// restarts.
	trackedCallers, trackedAccounts = 4096, 1024
)

// callers bounds the rate of the records of one kind, to factor times the constants.
type callers struct {
	factor   int
	callers  *lru.Cache[callerKey, *caller]
	accounts *lru.Cache[streams.Account, *rate.Limiter]
}

// callerKey identifies a caller: an account's principal, "" without a credential. The principal is
// an excerpt, which bounds the keys' memory.
type callerKey struct {
	account   streams.Account
	principal string
}

// caller tracks a caller's records of one kind.
type caller struct {
	recorded   *rate.Limiter
	suppressed atomic.Int64 // since the last record
}

func newCallers(factor int) *callers {
	// The bounds are positive constants: the calls do not fail.
	byCaller, err := lru.New[callerKey, *caller](trackedCallers)
	if err != nil {
		panic(err)
	}
	byAccount, err := lru.New[streams.Account, *rate.Limiter](trackedAccounts)
	if err != nil {
		panic(err)
	}
	return &callers{factor, byCaller, byAccount}
}

// admit returns the caller, and whether its call may be recorded now.
func (c *callers) admit(account streams.Account, principal string, now time.Time) (*caller, bool) {
	key := callerKey{account, excerpt.Text(principal, excerpt.Name)}
	one, ok := c.callers.Get(key)
	if !ok {
		fresh := &caller{recorded: rate.NewLimiter(rate.Limit(callerRate*c.factor), callerBurst*c.factor)}
		if one, ok, _ = c.callers.PeekOrAdd(key, fresh); !ok {
			one = fresh
		}
	}
	if !one.recorded.AllowN(now, 1) {
		return one, false
	}
	all, ok := c.accounts.Get(account)
	if !ok {
		fresh := rate.NewLimiter(rate.Limit(accountRate*c.factor), accountBurst*c.factor)
		if all, ok, _ = c.accounts.PeekOrAdd(account, fresh); !ok {
			all = fresh
		}
	}
	return one, all.AllowN(now, 1)
}
