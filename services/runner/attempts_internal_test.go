package runner

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/runner/webhook"
)

// A held call is not an attempt and must not hide one: an earlier request may have taken effect.
func TestAttempts_CountOnlyTheirStep(t *testing.T) {
	failed := &stepError{name: "a", retry: model.Retry{Attempts: 3}, err: errors.New("500")}
	other := &stepError{name: "b", err: errors.New("500")}
	held := &stepError{name: "a", err: &webhook.HeldError{Until: time.Now(), Reason: "open"}}
	var u unstored
	for _, e := range []*stepError{held, failed, held, other, other} {
		u.add("w", e)
	}
	u.add("other workflow", failed)
	if n := u.of("w", failed); n != 1 {
		t.Errorf("%d attempts, want 1", n)
	}
	if next := held.after(nil, u.of("w", held), time.Now()); next.Failed != 1 || next.Stuck {
		t.Errorf("held call after a failed call: %+v", next)
	}
	if next := held.after(nil, 0, time.Now()); next.Failed != 0 || next.Error != "open" {
		t.Errorf("held call: %+v", next)
	}
	if next := held.after(&attempts{
		Step:   "a",
		Failed: 2,
		Error:  "500",
		First:  time.Now(),
	}, 0, time.Now()); next.Failed != 2 || next.Error != "500" {
		t.Errorf("held call hides the failure of the last attempt: %+v", next)
	}
	if next := failed.after(nil, 1, time.Now()); next.Failed != 2 || next.Stuck {
		t.Errorf("second attempt: %+v", next)
	}
	if next := failed.after(nil, 2, time.Now()); next.Failed != 3 || !next.Stuck {
		t.Errorf("third attempt: %+v", next)
	}
	var last *attempts
	long := &stepError{name: "a", err: errors.New(strings.Repeat("500 ", 500)), began: time.Now()}
	for range 2 * maxLatest {
		last = long.after(last, 0, time.Now())
	}
	if latest := last.failedAt("a"); len(latest) != maxLatest || len(latest[0].Error) > maxLatestError ||
		latest[0].Ended.Before(latest[0].Began) || last.failedAt("b") != nil {
		t.Errorf("the latest attempts are %+v", latest)
	}
	u.stored("w", failed)
	if n, m := u.of("w", failed), u.of("w", other); n != 0 || m != 2 {
		t.Errorf("%d and %d attempts after one was stored, want 0 and 2", n, m)
	}
	if n := (*unstored)(nil).of("w", failed); n != 0 {
		t.Errorf("%d attempts of no instance", n)
	}
}
