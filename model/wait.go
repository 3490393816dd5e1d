package model

import (
	"context"
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"
)

// WaitTemplate determines the end of a wait.
type WaitTemplate struct{ length *expression }

// maxWaitYears bounds a wait.
const maxWaitYears = 10

// Until returns the end of a wait that begins at start. The expression yields a duration (see [ParseDuration]) or a
// time (RFC 3339), at most ten years ahead. The error wraps [ErrEvaluation].
func (t *WaitTemplate) Until(ctx context.Context, trigger Trigger, start time.Time) (time.Time, error) {
	text, err := t.length.text(ctx, trigger.vars(Failure{}))
	if err != nil {
		return time.Time{}, fmt.Errorf("wait: %w", err)
	}
	until, err := waitEnd(text, start)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: wait: %w", ErrEvaluation, err)
	}
	return until, nil
}

// waitEnd returns the end of a wait that begins at start.
func waitEnd(text string, start time.Time) (time.Time, error) {
	until, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		length, err := ParseDuration(text)
		if err != nil {
			return time.Time{}, fmt.Errorf("%w, or a time such as 2030-01-31T12:00:00Z", err)
		}
		until = length.After(start)
	}
	if until.After(start.AddDate(maxWaitYears, 0, 0)) {
		return time.Time{}, fmt.Errorf("%q is more than %d years ahead", text, maxWaitYears)
	}
	return until, nil
}

// wait parses a wait. A constant wait is checked, unless the document was accepted earlier (see [ParseStored]).
func (p *parser) wait(n *yaml.Node, path string) *WaitTemplate {
	t := &WaitTemplate{p.expression(p.envs.workflow, n, path, stringType)}
	if t.length == nil || p.stored || !t.length.constant {
		return t
	}
	text, err := t.length.text(p.ctx, &scope{})
	if err == nil {
		_, err = waitEnd(text, time.Now())
	}
	if err != nil {
		p.reject(n, path, "the wait can never end: %v", err)
	}
	return t
}
