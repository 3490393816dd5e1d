package aggregate

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/model"
)

// A state of the greatest size is accepted, a larger one only if the command does not enlarge it.
func TestBounds_StateSize(t *testing.T) {
	state := func(bytes int) model.Object { // as a response contains it
		text := strings.Repeat("x", bytes)
		return model.Object{"text": text[:bytes-(response.Object(model.Object{"text": text})-bytes)]}
	}
	greatest, larger := state(maxStateBytes), state(maxStateBytes+1)
	if response.Object(greatest) != maxStateBytes || response.Object(larger) != maxStateBytes+1 {
		t.Fatalf("%d and %d bytes", response.Object(greatest), response.Object(larger))
	}
	for name, c := range map[string]struct {
		before, after model.Object
		rejected      bool
	}{
		"the greatest":   {nil, greatest, false},
		"a larger one":   {greatest, larger, true},
		"an equal one":   {larger, larger, false},
		"a smaller one":  {state(maxStateBytes + 2), larger, false},
		"an empty state": {nil, nil, false},
	} {
		var tooLarge *stateSizeError
		if err := checkStateSize(c.before, c.after); errors.As(err, &tooLarge) != c.rejected {
			t.Errorf("%s: %v, want rejected %v", name, err, c.rejected)
		}
	}
}

// The memory of a state counts all of its members and elements, so that the cache's bound holds for nested ones.
func TestBounds_ResidentStateCountsNestedValues(t *testing.T) {
	text := strings.Repeat("x", 100)
	for name, c := range map[string]struct {
		value any
		want  int
	}{
		"a number":  {int64(1), valueBytes},
		"a text":    {text, valueBytes + 100},
		"a list":    {[]any{text, text}, valueBytes + 2*(elementBytes+valueBytes+100)},
		"an object": {model.Object{"name": text}, valueBytes + memberBytes + 4 + valueBytes + 100},
		"a nested object": {
			model.Object{"name": []any{model.Object{"a": text}}},
			valueBytes + memberBytes + 4 + valueBytes + elementBytes + valueBytes + memberBytes + 1 + valueBytes + 100,
		},
	} {
		if got := resident(c.value); got != c.want {
			t.Errorf("%s: %d bytes, want %d", name, got, c.want)
		}
	}
}
