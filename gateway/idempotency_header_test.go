package gateway_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// The header is sent over every protocol at both ports.
func TestIdempotencyKey_HeaderFillsField(t *testing.T) {
	s := newShapes(t, nil)
	once := s.message(t, "shapes.v1.OnceRequest")
	service, err := s.catalog.FindDescriptorByName("shapes.v1.Shapes")
	if err != nil {
		t.Fatal(err)
	}
	spec := connect.Spec{
		Procedure: "/shapes.v1.Shapes/Once",
		Schema:    service.(protoreflect.ServiceDescriptor).Methods().ByName("Once"),
	}
	call := func(protocol, key string, headers ...string) (string, error) {
		ctx, info := connect.NewClientContext(t.Context())
		info.RequestHeader().Set("Authorization", s.token(t, "acme", "shapes.write"))
		for _, value := range headers {
			info.RequestHeader().Add("Idempotency-Key", value)
		}
		request, answer := dynamicpb.NewMessage(once), dynamicpb.NewMessage(once)
		request.Set(once.Fields().ByName("key"), protoreflect.ValueOfString(key))
		err := s.client(protocol).CallUnary(ctx, spec, request, answer)
		return answer.Get(once.Fields().ByName("key")).String(), err
	}
	for _, protocol := range protocols {
		if protocol == "rest" || protocol == "connect+get" {
			continue
		}
		for name, tc := range map[string]struct {
			key     string
			headers []string
			want    string // "": refused
		}{
			"key":                         {"", []string{"abc"}, "abc"},
			"quoted key":                  {"", []string{`"a\"b"`}, `a"b`},
			"same key in header and body": {"abc", []string{"abc"}, "abc"},
			"same header twice":           {"", []string{"abc", `"abc"`}, "abc"},
			"different headers":           {"abc", []string{"abd"}, ""},
			"two":                         {"", []string{"abc", "abd"}, ""},
			"empty header":                {"", []string{`""`}, ""},
			"unclosed quote":              {"", []string{`"abc`}, ""},
			"body only":                   {"abc", nil, "abc"},
		} {
			got, err := call(protocol, tc.key, tc.headers...)
			if tc.want == "" &&
				(connect.CodeOf(err) != connect.CodeInvalidArgument ||
					!strings.Contains(err.Error(), "key: the header Idempotency-Key is")) ||
				tc.want != "" && (err != nil || got != tc.want) {
				t.Errorf("%s, %s: %q, %v", protocol, name, got, err)
			}
		}
	}
	answer := s.send(t, http.MethodPost, "/shapes/v1/once", `{"text":"x"}`, "Idempotency-Key", `"abc"`)
	if answer.status != http.StatusOK || !s.same(t, once, answer.text, `{"tenantId":"acme","key":"abc","text":"x"}`) {
		t.Errorf("rest: %d %s", answer.status, answer.text)
	}
	s.refuses(
		t, "different key in the body",
		s.send(t, http.MethodPost, "/shapes/v1/once", `{"key":"abd"}`, "Idempotency-Key", "abc"), http.StatusBadRequest,
		"invalid_argument", "the header Idempotency-Key is",
	)
	s.refuses(
		t, "different key in the path", s.send(t, http.MethodPost, "/shapes/v1/once/abd", "", "Idempotency-Key", "abc"),
		http.StatusBadRequest, "invalid_argument", "the header Idempotency-Key is",
	)
}

// The node is unavailable once.
func TestIdempotencyKey_HeaderPermitsRetries(t *testing.T) {
	s := newShapes(t, nil)
	calls := 0
	s.setAnswer(func(context.Context, string, *dynamicpb.Message, *dynamicpb.Message) error {
		if calls++; calls%2 == 1 {
			return connect.NewError(connect.CodeUnavailable, "not now")
		}
		return nil
	})
	if answer := s.send(
		t, http.MethodPost, "/shapes/v1/once", `{}`, "Idempotency-Key", "abc",
	); answer.status != http.StatusOK || calls != 2 {
		t.Errorf("with a key: status %d after %d calls", answer.status, calls)
	}
	if answer := s.send(t, http.MethodPost, "/shapes/v1/once", `{}`); answer.status != http.StatusServiceUnavailable ||
		calls != 3 {
		t.Errorf("without a key: status %d after %d calls", answer.status, calls)
	}
}
