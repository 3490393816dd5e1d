package transcode_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"pgregory.net/rapid"

	"github.com/headgate/headgate/gateway/transcode"
)

func TestAppendFieldJSON_EqualsFieldInMessage(t *testing.T) {
	desc := everything(t)
	program := transcode.NewCompiler(nil).Compile(desc)
	fields := desc.Fields()
	rapid.Check(t, func(t *rapid.T) {
		message := dynamicpb.NewMessage(desc)
		// Each field is set by a JSON value that fits it, or not at all.
		f := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(t, "field"))
		other := fields.Get(rapid.IntRange(0, fields.Len()-1).Draw(t, "other"))
		for _, candidate := range []string{
			`"2024-01-02T03:04:05Z"`, `"3s"`, `7`, `true`, `"YQ=="`, `[7]`, `["YQ=="]`, `[true]`, `{"a":7}`, `{}`,
		} {
			text := `{"` + other.JSONName() + `":` + candidate + `}`
			if protojson.Unmarshal([]byte(text), message) == nil && rapid.Bool().Draw(t, "take") {
				break
			}
		}
		wire, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		whole, err := program.AppendJSON(nil, wire)
		if err != nil {
			t.Skip("the value has no JSON")
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(whole, &members); err != nil {
			t.Fatal(err)
		}
		got, err := program.AppendFieldJSON([]byte("x"), wire, f.Number())
		if err != nil || got[0] != 'x' || !json.Valid(got[1:]) {
			t.Fatalf("%s: %q, %v", f.Name(), got, err)
		}
		if want, set := members[f.JSONName()]; set && string(got[1:]) != string(want) {
			t.Errorf("%s is %s by itself and %s in its message", f.Name(), got[1:], want)
		}
		if _, set := members[f.JSONName()]; !set {
			zero := string(got[1:])
			switch {
			case f.IsMap() &&
				zero != "{}", f.IsList() &&
				zero != "[]", !f.IsList() && !f.IsMap() && f.HasPresence() && zero != "null":
				t.Errorf("%s, which is not set, is %s", f.Name(), zero)
			}
		}
	})
	if _, err := program.AppendFieldJSON(nil, nil, 99_999); err == nil {
		t.Error("an absent field has JSON")
	}
}
