package query_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/query"
)

// issuers returns a Pages per version that it issues.
func issuers() map[string]*query.Pages {
	return map[string]*query.Pages{
		"1": query.NewPages([]byte("key"), &token.Gate{}), "2": query.NewPages([]byte("key"), nil),
	}
}

// planOf returns a plan whose terms have such values.
func planOf(values []any) query.Plan {
	plan := query.Plan{Fingerprint: 7}
	for _, value := range values {
		term := query.Term{Type: model.TypeString}
		switch value.(type) {
		case int64:
			term.Type = model.TypeInt
		case bool:
			term.Type = model.TypeBool
		}
		plan.Terms = append(plan.Terms, term)
	}
	return plan
}

func TestPages_TokenIsBoundToRequest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		term := rapid.OneOf(rapid.Just[any](nil), rapid.Int64Range(-1<<53, 1<<53).AsAny(), rapid.Bool().AsAny(),
			rapid.StringMatching(`[ -~]{0,40}`).AsAny())
		values := append(rapid.SliceOfN(term, 0, 8).Draw(t, "terms"),
			rapid.StringMatching(`[ -~]{1,200}`).Draw(t, "key"))
		request := query.Request{Filter: "a > 1", OrderBy: "a"}
		for version, issuer := range issuers() {
			text, err := issuer.Next("acme/v", request, planOf(values), values)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := issuer.Next("acme/v", request, planOf(values), values); again != text {
				t.Fatalf("version %s: equal pages have other tokens", version)
			}
			for _, reader := range issuers() {
				got, err := reader.Parse(text, "acme/v", request, planOf(values))
				if err != nil || !reflect.DeepEqual([]any(got), values) {
					t.Fatalf("version %s: %v, %v; want %v", version, got, err, values)
				}
				for name, refused := range map[string]func() error{
					"another tenant": func() error {
						_, err := reader.Parse(text, "globex/v", request,
							planOf(values))
						return err
					},
					"another filter": func() error {
						_, err := reader.Parse(text, "acme/v", query.Request{OrderBy: "a"}, planOf(values))
						return err
					},
					"another order": func() error {
						_, err := reader.Parse(text, "acme/v", query.Request{Filter: "a > 1"}, planOf(values))
						return err
					},
					"another number of terms": func() error {
						_, err := reader.Parse(text, "acme/v", request, planOf(append([]any{"x"}, values...)))
						return err
					},
					"another definition of the view": func() error {
						plan := planOf(values)
						plan.Fingerprint++
						_, err := reader.Parse(text, "acme/v", request, plan)
						return err
					},
				} {
					if err := refused(); !errors.Is(err, query.ErrToken) {
						t.Fatalf("version %s, %s: %v", version, name, err)
					}
				}
			}
		}
	})
}

func TestPages_TokenIsBounded(t *testing.T) {
	long := strings.Repeat("\x01é", 500_000)
	var values []any
	for range 8 {
		values = append(values, long)
	}
	values = append(values, strings.Repeat("ключ", 128)) // 512 characters, the limit of Get
	for version, issuer := range issuers() {
		text, err := issuer.Next("acme/v", query.Request{}, planOf(values), values)
		if err != nil || len(text) > 4096 {
			t.Fatalf("version %s: %d bytes, %v", version, len(text), err)
		}
		cursor, err := issuer.Parse(text, "acme/v", query.Request{}, planOf(values))
		if err != nil || !cursor.Digests() {
			t.Fatalf("version %s: %v", version, err)
		}
		if err := cursor.Resolve(values[:len(values)-1]); err != nil || !reflect.DeepEqual([]any(cursor), values) {
			t.Errorf("version %s: %v", version, err)
		}
		cursor, err = issuer.Parse(text, "acme/v", query.Request{}, planOf(values))
		if err != nil {
			t.Fatal(err)
		}
		for name, row := range map[string][]any{"changed": {long + "x"}, "gone": nil} {
			if err := cursor.Resolve(row); !errors.Is(err, query.ErrToken) {
				t.Errorf("version %s: a row that is %s: %v", version, name, err)
			}
		}
		if _, err := issuer.Next(
			"acme/v", query.Request{}, planOf([]any{long}), []any{long},
		); !errors.Is(err, query.ErrLongKey) {
			t.Errorf("version %s: a key of %d bytes: %v", version, len(long), err)
		}
	}
}

// The texts that JSON expands most: control characters, in a key of the maximum length of Get.
func TestPages_TokenOfAnyKeyIsBounded(t *testing.T) {
	for _, character := range []string{"\x01", "\u2028", "k", "\\", "\U0010FFFD"} {
		var values []any
		for range 8 {
			values = append(values, strings.Repeat(character, 32/len(character)))
		}
		values = append(values, strings.Repeat(character, 512))
		for version, issuer := range issuers() {
			text, err := issuer.Next("acme/v", query.Request{}, planOf(values), values)
			if err != nil || len(text) > 4096 {
				t.Fatalf("version %s, %q: %d bytes, %v", version, character, len(text), err)
			}
			cursor, err := issuer.Parse(text, "acme/v", query.Request{}, planOf(values))
			if err != nil || !reflect.DeepEqual([]any(cursor), values) {
				t.Errorf("version %s, %q: %v", version, character, err)
			}
		}
	}
}

// Tokens that were issued before tokens had a fingerprint are accepted.
func TestPages_TokenWithoutFingerprintIsAccepted(t *testing.T) {
	values := []any{int64(7), "k"}
	sealed := token.NewSealer([]byte("key"), "page").Seal([]byte{2}, "4:page;6:acme/v;0:;0:;", []byte(`[7,"k"]`))
	cursor, err := issuers()["2"].Parse(base64.RawURLEncoding.EncodeToString(sealed), "acme/v", query.Request{},
		planOf(values))
	if err != nil || !reflect.DeepEqual([]any(cursor), values) {
		t.Errorf("%v, %v", cursor, err)
	}
}

// A cursor has the plan's types: a token of another store, or of a column whose type has changed, is rejected instead
// of failing in the database.
func TestPages_ValuesOfAnotherTypeAreRejected(t *testing.T) {
	issuer := issuers()["2"]
	for _, tc := range []struct {
		value any
		as    model.ColumnType
		want  any // nil: rejected
	}{
		{int64(1), model.TypeBool, true},
		{int64(3), model.TypeDouble, 3.0},
		{1e17, model.TypeDouble, 1e17},
		{"x", model.TypeInt, nil},
		{int64(1), model.TypeString, nil},
		{true, model.TypeInt, nil},
		{1.5, model.TypeInt, nil},
		{strings.Repeat("x", 300), model.TypeInt, nil}, // a digest
	} {
		values := []any{tc.value, "k"}
		text, err := issuer.Next("acme/v", query.Request{}, planOf(values), values)
		if err != nil {
			t.Fatal(err)
		}
		plan := planOf(values)
		plan.Terms[0].Type = tc.as
		cursor, err := issuer.Parse(text, "acme/v", query.Request{}, plan)
		if tc.want == nil && !errors.Is(err, query.ErrToken) || tc.want != nil && (err != nil || cursor[0] != tc.want) {
			t.Errorf("%v as %s: %v, %v", tc.value, tc.as, cursor, err)
		}
	}
}

func TestPages_EncryptedTokenRevealsNothing(t *testing.T) {
	text, err := query.NewPages([]byte("key"), nil).Next("acme/v", query.Request{}, query.Plan{},
		[]any{"balance", int64(1234567), "the-key"})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"balance", "1234567", "the-key"} {
		if bytes.Contains(raw, []byte(part)) {
			t.Errorf("%q is in the token", part)
		}
	}
}

func FuzzPageToken(f *testing.F) {
	for _, issuer := range issuers() {
		text, err := issuer.Next("acme/v", query.Request{}, planOf([]any{int64(7), "k"}), []any{int64(7), "k"})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		cursor, err := issuers()["2"].Parse(text, "acme/v", query.Request{}, planOf([]any{int64(7), "k"}))
		if err == nil && cursor.Key() == "" && !cursor.Digests() && len(cursor) != 2 {
			t.Fatalf("%q is read as %v", text, cursor)
		}
		if err != nil && !errors.Is(err, query.ErrToken) {
			t.Fatal(err)
		}
	})
}
