package webhook

import (
	"errors"
	"net/http"
	"testing"
	"time"
)

func TestOutcomeOf_ConflictIsRetriedAfterUnknownOutcome(t *testing.T) {
	for _, row := range []struct {
		status            int
		repeated, refused bool
	}{
		{http.StatusConflict, false, true},
		{http.StatusConflict, true, false},
		{http.StatusTooEarly, false, false},
		{http.StatusTooEarly, true, false},
		{http.StatusGone, true, true},
		{http.StatusPreconditionFailed, true, true},
		{http.StatusInternalServerError, false, false},
	} {
		err := outcomeOf(&http.Response{StatusCode: row.status}, "host", row.repeated, time.Now())
		var refusal *RefusedError
		if err == nil || errors.As(err, &refusal) != row.refused {
			t.Errorf("%d, repeated %v: %v", row.status, row.repeated, err)
		}
	}
}

func TestOutcomeOf_RetryAfterIsHonoured(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"120":                           2 * time.Minute,
		" 0 ":                           0,
		"86401":                         24 * time.Hour,
		"99999999999999999999":          24 * time.Hour,
		"Sun, 01 Mar 2026 12:01:30 GMT": 90 * time.Second,
		"Sun, 01 Mar 2026 11:00:00 GMT": 0,
		"Sun, 01 Mar 2099 11:00:00 GMT": 24 * time.Hour,
		"":                              -1,
		"soon":                          -1,
		"-5":                            -1,
		"1.5":                           -1,
	} {
		err := outcomeOf(
			&http.Response{StatusCode: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {text}}},
			"host", false, now,
		)
		got := time.Duration(-1)
		var asked *RetryAfterError
		if errors.As(err, &asked) {
			got = asked.After
		}
		if err == nil || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}
