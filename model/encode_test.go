package model

import (
	"encoding/json"
	"math"
	"strconv"
	"testing"

	"cel.dev/cel-go/common/types"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// numbers draws float64 values of every magnitude, including integers above 2^53.
func numbers() *rapid.Generator[float64] {
	return rapid.OneOf(
		rapid.Map(rapid.Uint64(),
			math.Float64frombits).Filter(func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }),
		rapid.Map(rapid.Int64(), func(i int64) float64 { return float64(i) }),
		rapid.SampledFrom(
			[]float64{
				0, math.Copysign(0, -1), 1 << 53, 1<<53 + 2, 1e16, 1e18, 1 << 60, 1 << 62, 1 << 63, -(1 << 63), 1e19,
				1e20, 1e21, 1e22, math.MaxFloat64, math.SmallestNonzeroFloat64,
			},
		),
	)
}

func TestNormalize_NumberEqualsItsDecodedJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := numbers().Draw(t, "f")
		text, err := json.Marshal(Object{"n": f})
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeObject(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read["n"], Normalize(f)); diff != "" {
			t.Errorf("%s (-read +normalized): %s", text, diff)
		}
		native, err := native(types.Double(f))
		if diff := cmp.Diff(read["n"], native); diff != "" || err != nil {
			t.Errorf("%s (-read +yielded by an expression): %s, %v", text, diff, err)
		}
	})
}

func TestEncode_StoredObjectEqualsItsDecodedJSON(t *testing.T) {
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		leaves := []*rapid.Generator[any]{
			numbers().AsAny(), rapid.Int64().AsAny(), rapid.String().AsAny(), rapid.Bool().AsAny(),
			rapid.Just[any](nil),
			rapid.SampledFrom([]any{"\xff", "\u2028", "<&>"}),
		}
		if depth > 0 {
			leaves = append(leaves,
				rapid.SliceOfN(value(depth-1), 0, 4).AsAny(),
				rapid.MapOfN(rapid.String(), value(depth-1), 0, 4).AsAny())
		}
		return rapid.OneOf(leaves...)
	}
	rapid.Check(t, func(t *rapid.T) {
		data := rapid.MapOfN(rapid.String(), value(2), 0, 5).Draw(t, "data")
		text, stored, err := Encode(data)
		if err != nil {
			t.Fatal(err)
		}
		read, err := DecodeObject(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(read, stored); diff != "" {
			t.Errorf("%s (-read +stored): %s", text, diff)
		}
	})
}

func TestDecodeObject_NotationsOfNumberAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := numbers().Draw(t, "f")
		var values []any
		for _, format := range []byte{'e', 'f', 'g'} {
			object, err := DecodeObject([]byte(`{"n":` + strconv.FormatFloat(f, format, -1, 64) + `}`))
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, object["n"])
		}
		if values[0] != values[1] || values[1] != values[2] {
			t.Errorf("%v decoded as %v", f, values)
		}
	})
}
