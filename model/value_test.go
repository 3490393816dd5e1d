package model

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecodeObject_NumbersAreExact(t *testing.T) {
	for text, want := range map[string]any{
		`10`: int64(10), `10.0`: int64(10), `1e1`: int64(10), `-0`: int64(0), `-0.0`: int64(0), `0.5`: 0.5,
		`-1.5e-3`:          -0.0015,
		`9007199254740991`: int64(1<<53 - 1), `9007199254740993`: int64(1<<53 + 1),
		`-9007199254740993`:   int64(-1<<53 - 1),
		`9223372036854775807`: int64(1<<63 - 1), `9223372036854775808`: float64(1 << 63), `1e300`: 1e300,
		`2251799813685248.5`:       2251799813685248.5,
		`[1, [9007199254740993]]`:  []any{int64(1), []any{int64(1<<53 + 1)}},
		`{"in": 9007199254740993}`: Object{"in": int64(1<<53 + 1)},
	} {
		got, err := DecodeObject([]byte(`{"n": ` + text + `}`))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(Object{"n": want}, got); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

// FuzzDecodeObject compares the fast path for numbers with their exact texts.
func FuzzDecodeObject(f *testing.F) {
	for _, seed := range []string{
		`{"n": 9007199254740993}`, `{"a": [1.0, {"b": -0}], "c": "\ud800"}`, `null`, `{} {}`, `{"n": 1e999}`, `[1]`,
		"{\"\xff\": 1}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeObject(data)
		if len(data) == 0 {
			return
		}
		want, wantErr := decodeExactly(data)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, by the texts %v", err, wantErr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
