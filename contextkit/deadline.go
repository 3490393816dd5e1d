package contextkit

import "time"

// DeadlineMargin is the most by which a callee's deadline is earlier than its caller's, so
// that the callee's own verdict on a call that took too long still reaches the caller.
const DeadlineMargin = 20 * time.Millisecond

// marginShare is the divisor of the remaining time that yields the largest deadline margin.
const marginShare = 4

// CalleeTime returns the callee's part of a caller's remaining time: all but the deadline
// margin, which is [DeadlineMargin] but at most a quarter of the remaining time. It is
// positive if remaining is.
func CalleeTime(remaining time.Duration) time.Duration {
	return remaining - min(DeadlineMargin, remaining/marginShare)
}
