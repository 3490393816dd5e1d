package model

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestAMemberIsWhatTheEvaluatorYields holds the short way against CEL's own.
func TestAMemberIsWhatTheEvaluatorYields(t *testing.T) {
	envs, err := sharedEnvironments()
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]any{
		"meta": Meta{AggregateID: "a", Version: 3}.object(), "row": Object{"d": 2.0, "n": nil},
		"event": Object{"s": "x", "i": int64(-1), "d": 0.5, "b": true, "n": nil, "o": Object{"inner": "y", "d": 4.0}, "l": []any{1.0, "z"}},
	}
	for source, direct := range map[string]bool{
		"event.s": true, "event.i": true, "event.d": true, "event.b": true, "event.n": true, "event.o": true, "event.o.inner": true, "event.o.d": true, "event.l": true,
		"meta.version": true, "meta.aggregate_id": true, "row.d": true, "row.n": true,
		"event.missing": true, "event.s.inner": true, "event.n.inner": true, "event.o.missing": true,
		"has(event.s)": false, "event.?s": false, "event.s + 'x'": false, "event['s']": false, "event": false, "'text'": false, "event.l[0]": false,
	} {
		e, err := compile(envs.view, source, nil)
		if err != nil {
			t.Fatal(err)
		}
		if (e.member != nil) != direct {
			t.Errorf("%s: taken as the member %v", source, e.member)
		}
		slow := *e
		slow.member = nil
		type outcome struct {
			Value any
			Err   string
		}
		yields := func(e *expression) outcome {
			value, err := e.value(context.Background(), vars)
			if err != nil {
				return outcome{Err: err.Error()}
			}
			return outcome{Value: value}
		}
		if diff := cmp.Diff(yields(&slow), yields(e)); diff != "" {
			t.Errorf("%s: the evaluator and the short way: %s", source, diff)
		}
	}
}
