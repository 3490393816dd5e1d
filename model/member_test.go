package model

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMember_EqualsEvaluatedValue compares the fast path with CEL's evaluator.
func TestMember_EqualsEvaluatedValue(t *testing.T) {
	envs, err := sharedEnvironments()
	if err != nil {
		t.Fatal(err)
	}
	vars := &scope{
		meta: &Meta{AggregateID: "a", Version: 3},
		variables: [2]variable{
			{rowVariable, Object{"d": 2.0, "n": nil}},
			{
				eventVariable,
				Object{
					"s": "x", "i": int64(-1), "d": 0.5, "b": true, "n": nil, "o": Object{"inner": "y", "d": 4.0},
					"l": []any{1.0, "z"},
				},
			},
		},
	}
	for source, direct := range map[string]bool{
		"event.s": true, "event.i": true, "event.d": true, "event.b": true, "event.n": true, "event.o": true,
		"event.o.inner": true, "event.o.d": true, "event.l": true,
		"meta.version": true, "meta.aggregate_id": true, "meta.time": true, "meta.missing": true,
		"meta.version.inner": true, "row.d": true, "row.n": true,
		"event.missing": true, "event.s.inner": true, "event.n.inner": true, "event.o.missing": true,
		"has(event.s)": false, "event.?s": false, "event.s + 'x'": false, "event['s']": false, "event": false,
		"'text'": false, "event.l[0]": false, "meta": false, "meta['version']": false, "meta.size()": false,
	} {
		e, err := compile(envs.view, source, nil, &regexpBudget{})
		if err != nil {
			t.Fatal(err)
		}
		if (e.member != nil) != direct {
			t.Errorf("%s: parsed as the member %v", source, e.member)
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
			t.Errorf("%s (-evaluator +direct access): %s", source, diff)
		}
	}
}

func TestEnvelope_HasAllMembers(t *testing.T) {
	meta := Meta{
		Tenant:        "t",
		AggregateType: "wallet",
		AggregateID:   "w",
		Version:       3,
		Time:          "2026-01-01T00:00:00Z",
		EventID:       "e",
	}
	want := Object{
		"tenant": "t", "aggregate_type": "wallet", "aggregate_id": "w", "version": int64(3),
		"time": "2026-01-01T00:00:00Z", "event_id": "e",
	}
	if diff := cmp.Diff(want, meta.object()); diff != "" {
		t.Error(diff)
	}
}

func TestExpression_OnlyLoopsCheckContext(t *testing.T) {
	envs, err := sharedEnvironments()
	if err != nil {
		t.Fatal(err)
	}
	var many []any
	for n := range int64(10 * interruptEvery) {
		many = append(many, n)
	}
	ended, end := context.WithCancel(context.Background())
	end()
	for source, loops := range map[string]bool{
		"event.many.all(n, n >= 0)": true, "size(event.many.map(n, n + 1)) > 1": true,
		"!event.many.exists(n, n < 0)": true,
		"event.many[3] + 1 > 0":        false, "has(event.many)": false, "size(event.many) > 0 ? true : false": false,
	} {
		e, err := compile(envs.view, source, boolType, &regexpBudget{})
		if err != nil {
			t.Fatal(err)
		}
		vars := &scope{variables: [2]variable{{eventVariable, Object{"many": many}}}}
		if yes, err := e.boolean(context.Background(), vars); !yes || err != nil {
			t.Errorf("%s: %v, %v", source, yes, err)
		}
		if _, err := e.boolean(ended, vars); errors.Is(err, context.Canceled) != loops {
			t.Errorf("%s, canceled context: %v", source, err)
		}
	}
}
