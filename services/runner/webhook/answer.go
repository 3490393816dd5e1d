package webhook

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter bounds the delay that a receiver can ask for.
const maxRetryAfter = 24 * time.Hour

// RetryAfterError reports when a receiver wants the call to be retried (RFC 9110 §10.2.3).
type RetryAfterError struct {
	// After is at most one day.
	After time.Duration
	err   error
}

// Error implements error.
func (e *RetryAfterError) Error() string { return e.err.Error() }

// Unwrap returns the response's error.
func (e *RetryAfterError) Unwrap() error { return e.err }

// outcomeOf returns the error of a response, nil for success. A refusal is permanent: every status below 500 except
// 408, 425 and 429, which ask for a retry, and, if an earlier attempt may have reached the receiver, 409: it may
// still process that attempt (draft-ietf-httpapi-idempotency-key-header §2.6).
func outcomeOf(res *http.Response, host string, repeated bool, now time.Time) error {
	// Use the standard text, since the receiver's reason phrase may be of any length.
	status := strings.TrimSpace(strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode))
	switch {
	case res.StatusCode < 300:
		return nil
	case res.StatusCode >= 500,
		res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusRequestTimeout,
		res.StatusCode == http.StatusTooEarly,
		res.StatusCode == http.StatusConflict && repeated:
		err := fmt.Errorf("webhook %s returned %s", host, status)
		if after, ok := retryAfter(res.Header.Get("Retry-After"), now); ok {
			return &RetryAfterError{after, err}
		}
		return err
	}
	return &RefusedError{fmt.Sprintf("%s returned %s", host, status)}
}

// retryAfter parses a Retry-After header: seconds or an HTTP date.
func retryAfter(text string, now time.Time) (time.Duration, bool) {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0, false
	}
	if strings.Trim(text, "0123456789") == "" {
		seconds, err := strconv.ParseInt(text, 10, 64)
		if err != nil || seconds > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0, false
	}
	return min(max(0, at.Sub(now)), maxRetryAfter), true
}
