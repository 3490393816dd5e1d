package gateway_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/internal/rpc/grpcmeta"
)

// Clients send headers that are invalid in gRPC.
func TestMetadata_InvalidInGRPCIsRejected(t *testing.T) {
	longest := "X-" + strings.Repeat("N", grpcmeta.MaxNameLength-2)
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		for _, w := range everyWay() {
			t.Run(w.String(), func(t *testing.T) {
				for what, row := range map[string]struct {
					name, value string
					fine        bool
				}{
					"not base64":                     {"X-Custom-Bin", "!", false},
					"URL-safe base64":                {"X-Custom-Bin", "_-8", false},
					"truncated base64":               {"X-Custom-Bin", "AAECA", false},
					"base64 with inner padding":      {"X-Custom-Bin", "AA==AA==", false},
					"base64 with trailing bits":      {"X-Custom-Bin", "AB", false},
					"base64 with a space":            {"X-Custom-Bin", "AA AA", false},
					"invalid base64 in a list":       {"X-Custom-Bin", "AAEC,%", false},
					"text in a binary header":        {"-Bin", "grün", false},
					"non-ASCII bytes":                {"X-Custom", "gr\xfcn", false},
					"UTF-8":                          {"X-Custom", "grün", false},
					"tab in the value":               {"X-Custom", "a\tb", false},
					"invalid character in the name":  {"X!Custom", "a", false},
					"name over the maximum length":   {longest + "N", "a", false},
					"name of the maximum length":     {longest, "a", true},
					"name with dots and underscores": {"X_custom.name", "a", true},
					"empty value":                    {"X-Custom", "", true},
					"empty binary value":             {"X-Custom-Bin", "", true},
				} {
					m.set(nil, nil)
					got := w.do(t, e, m, http.Header{"Authorization": {token}, row.name: {row.value}})
					switch seen := m.received(); {
					case row.fine &&
						(got.err != nil || !slices.Equal(seen[http.CanonicalHeaderKey(row.name)], []string{row.value})):
						t.Errorf("%s: the node received %q: %v", what, seen[http.CanonicalHeaderKey(row.name)], got.err)
					case row.fine:
					case connect.CodeOf(got.err) != connect.CodeInvalidArgument || seen != nil:
						t.Errorf("%s: %v, node called: %v; want INVALID_ARGUMENT without a call", what, got.err,
							seen != nil)
					case !strings.Contains(got.err.Error(), strings.ToLower(row.name)[:min(len(row.name), 60)]):
						t.Errorf("%s: %v does not name the header", what, got.err)
					}
				}
			})
		}
		if open := e.edge.OpenBreakers(); len(open) > 0 {
			t.Errorf("open breakers: %q", open)
		}
	})
}

// Binary values are sent in every permitted form.
func TestMetadata_BinaryValuesPassBothWays(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		for _, w := range everyWay() {
			for what, values := range map[string][]string{
				"without padding":     {"AA", "AAE", "AAEC"},
				"with padding":        {"AA==", "AAE=", "AAEC"},
				"joined by commas":    {"AA==,AAE, AAEC"},
				"joined and separate": {"AA,AAE=", "AAEC"},
			} {
				sent := http.Header{"X-Some-Bin": values}
				m.set(sent, http.Header{"X-Other-Bin": values})
				got := w.do(t, e, m, http.Header{"Authorization": {token}, "X-Some-Bin": values})
				want := []string{"AA", "AAE", "AAEC"}
				if seen := m.received(); got.err != nil || !slices.Equal(seen["X-Some-Bin"], want) {
					t.Errorf("%v, %s: the node received %q, want %q: %v", w, what, seen["X-Some-Bin"], want, got.err)
				}
				for _, name := range []string{"X-Some-Bin", "X-Other-Bin"} {
					if w.protocol == "rest" && w.stream && name == "X-Other-Bin" {
						continue // a stream of events has no trailers
					}
					if !slices.Equal(got.fields[name], want) {
						t.Errorf("%v, %s: the client received %s %q, want %q", w, what, name, got.fields[name], want)
					}
				}
			}
		}
	})
}

// The node answers with headers that would make the client's call fail.
func TestMetadata_NodesInvalidHeadersAreDropped(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		bad := http.Header{
			"X-Own": {"passes"}, "X-Some-Bin": {"!", "AA=="}, "X-Text": {"gr\xfcn", "green"}, "X-Tab": {"a\tb"},
			"X!Custom": {"a"}, "X-" + strings.Repeat("n", grpcmeta.MaxNameLength): {"a"},
		}
		for _, w := range everyWay() {
			m.set(bad, bad)
			got := w.do(t, e, m, http.Header{"Authorization": {token}})
			if got.err != nil || !slices.Contains(got.fields["X-Own"], "passes") ||
				!slices.Contains(got.fields["X-Some-Bin"], "AA") || !slices.Contains(got.fields["X-Text"], "green") {
				t.Errorf("%v: the client received %v: %v", w, got.fields, got.err)
			}
			for name, values := range got.fields {
				if strings.HasPrefix(name, "X-") && grpcmeta.Invalid(name, values) != "" {
					t.Errorf("%v: the client received %s %q", w, name, values)
				}
			}
		}
	})
}
