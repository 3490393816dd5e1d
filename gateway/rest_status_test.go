package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/compression"
)

// Each error has its HTTP status and headers.
func TestREST_ErrorsHaveHTTPStatusAndHeaders(t *testing.T) {
	s := newShapes(t, nil)
	large := `{"aString":"` + strings.Repeat("x", 1<<20) + `"}`
	for name, tc := range map[string]struct {
		method, path, body string
		send               []string
		status             int
		code, message      string
		header, value      string
	}{
		"body over the limit": {
			http.MethodPost, "items", large, nil, 413, "resource_exhausted", "the body is larger than", "", "",
		},
		"unsupported media type": {
			http.MethodPost, "items", "a=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415,
			"invalid_argument", "send application/json", "Accept", "application/json",
		},
		"unsupported encoding": {
			http.MethodPost, "items", "{}", []string{"Content-Encoding", "rot13"}, 415, "unimplemented",
			"supported: gzip", "Accept-Encoding", "gzip, zstd, br",
		},
		"two encodings": {
			http.MethodPost, "items", "{}", []string{"Content-Encoding", "gzip, br"}, 415, "unimplemented",
			"supported: gzip", "Accept-Encoding", "gzip, zstd, br",
		},
		"unsupported method": {
			http.MethodPatch, "items", "{}", nil, 405, "unimplemented", "PATCH is not allowed", "Allow",
			"GET, HEAD, SEARCH, POST",
		},
		"HEAD without a GET": {
			http.MethodDelete, "once", "", nil, 405, "unimplemented", "DELETE is not allowed", "Allow", "POST",
		},
		"unknown path": {
			http.MethodGet, "nothing", "", nil, 404, "not_found", "nothing is served", "", "",
		},
		"unknown path, gRPC content type": {
			http.MethodGet, "nothing", "", []string{"Content-Type", "application/grpc"}, 404, "unimplemented",
			"is not served", "", "",
		},
		"unknown path, gRPC-Web content type": {
			http.MethodDelete, "nothing", "", []string{"Content-Type", "application/grpc-web-text"}, 404,
			"unimplemented", "is not served", "", "",
		},
		"unsupported method, gRPC content type": {
			http.MethodPatch, "items", "", []string{"Content-Type", "application/grpc-web"}, 405, "unimplemented",
			"PATCH is not allowed", "Allow", "GET, HEAD, SEARCH, POST",
		},
		"no credential": {
			http.MethodGet, "items", "", []string{"Authorization", ""}, 401, "unauthenticated", "no credential",
			"WWW-Authenticate", "Bearer",
		},
		"invalid credential": {
			http.MethodGet, "items", "", []string{"Authorization", "Bearer x"}, 401, "unauthenticated", "",
			"WWW-Authenticate", `Bearer error="invalid_token"`,
		},
		"invalid timeout": {
			http.MethodGet, "items", "", []string{"Connect-Timeout-Ms", "soon"}, 400, "invalid_argument",
			"send milliseconds", "", "",
		},
		"body that is not JSON": {
			http.MethodPost, "items", "{", nil, 400, "invalid_argument", "unexpected end of the text", "", "",
		},
		"HEAD of a stream": {http.MethodHead, "items:watch", "", nil, 405, "", "", "Allow", "GET"},
	} {
		answer := s.send(t, tc.method, "/shapes/v1/"+tc.path, tc.body, tc.send...)
		if tc.method == http.MethodHead {
			if answer.status != tc.status || answer.text != "" {
				t.Errorf("%s: %d %s", name, answer.status, answer.text)
			}
		} else {
			s.refuses(t, name, answer, tc.status, tc.code, tc.message)
		}
		if tc.header != "" && answer.header.Get(tc.header) != tc.value {
			t.Errorf("%s: %s is %q, want %q", name, tc.header, answer.header.Get(tc.header), tc.value)
		}
	}
	if answer := s.send(t, http.MethodOptions, "/shapes/v1/items", ""); answer.status != http.StatusNoContent ||
		answer.header.Get("Allow") == "" {
		t.Errorf("OPTIONS: %d %v", answer.status, answer.header)
	}
	for _, contentType := range []string{
		"text/plain", "application/xml", "not a type", "application/json; charset=utf-8",
	} {
		s.gets(t, "empty body of "+contentType,
			s.send(t, http.MethodPost, "/shapes/v1/items/a", "", "Content-Type", contentType), `{"name":"a"}`)
		chunked := s.sendBody(t, http.MethodPost, "/shapes/v1/items/a", io.MultiReader(strings.NewReader("")),
			"Content-Type", contentType, "Content-Encoding", "gzip")
		s.gets(t, "empty chunked body of "+contentType, chunked, `{"name":"a"}`)
	}
	chunked := s.sendBody(t, http.MethodPost, "/shapes/v1/items", io.MultiReader(strings.NewReader("<a/>")),
		"Content-Type", "application/xml")
	s.refuses(t, "chunked body", chunked, http.StatusUnsupportedMediaType, "invalid_argument",
		"send application/json")
	chunked = s.sendBody(t, http.MethodGet, "/shapes/v1/items", io.MultiReader(strings.NewReader("{}")))
	s.refuses(t, "chunked body of a GET", chunked, http.StatusBadRequest, "invalid_argument",
		"the path takes no body")
	for _, c := range compression.All() {
		answer := s.sendBody(t, http.MethodPost, "/shapes/v1/items", compressed(t, c, `{"aString":"x"}`),
			"Content-Encoding", strings.ToUpper(c.Name()))
		s.gets(t, c.Name(), answer, `{"aString":"x"}`)
	}
}

func TestREST_OtherMethodsOfPagesAreNotAllowed(t *testing.T) {
	s := newShapes(t, nil)
	for _, path := range []string{"/health", "/ready", "/openapi.json"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete} {
			answer := s.sendBody(t, method, path, http.NoBody)
			if answer.status != http.StatusMethodNotAllowed || answer.header.Get("Allow") != "GET, HEAD" ||
				!strings.Contains(answer.text, "is not allowed") {
				t.Errorf("%s %s: %d, Allow %q: %s", method, path, answer.status, answer.header.Get("Allow"),
					answer.text)
			}
		}
		if answer := s.sendBody(t, http.MethodHead, path, http.NoBody); answer.status != http.StatusOK {
			t.Errorf("HEAD %s: %d", path, answer.status)
		}
	}
}

// Unary and streamed requests are malformed, with and without the beginning of a message (RFC 9112
// §7.1).
func TestREST_MalformedChunksAreInvalidArgument(t *testing.T) {
	s := newShapes(t, nil)
	for _, path := range []string{"/shapes/v1/items/a", "/shapes/v1/items/a:collect", "/shapes/v1/raw"} {
		for _, chunks := range []string{
			"zz\r\n{}\r\n0\r\n\r\n", "1\r\n{xx0\r\n\r\n", "-1\r\n{}\r\n", strings.Repeat("f", 17) + "\r\n{}\r\n",
		} {
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, err = fmt.Fprintf(
				conn,
				"POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: "+
					"application/json\r\nTransfer-Encoding: chunked\r\n\r\n%s",
				path, s.token(t, "acme", "shapes.read", "shapes.write"), chunks,
			)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(res.Body)
			if res.Body.Close(); res.StatusCode != http.StatusBadRequest ||
				!strings.Contains(string(text), "invalid_argument") {
				t.Errorf("%s, chunks %q: %d %s", path, chunks, res.StatusCode, text)
			}
		}
	}
}

// A node's error details become HTTP headers.
func TestREST_NodesErrorsHaveHTTPHeaders(t *testing.T) {
	s := newShapes(t, nil)
	wait := func(code connect.Code, delay time.Duration) error {
		return rpc.WithDetails(connect.NewError(code, "not now"),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
	}
	for name, tc := range map[string]struct {
		err        error
		status     int
		retryAfter string
	}{
		"exhausted": {wait(connect.CodeResourceExhausted, 50*time.Millisecond), 429, "1"},
		"resource exhausted, RetryInfo": {
			wait(connect.CodeResourceExhausted, 61*time.Second+time.Millisecond), 429, "62",
		},
		"unavailable":                      {wait(connect.CodeUnavailable, 2*time.Second), 503, "2"},
		"resource exhausted, no RetryInfo": {connect.NewError(connect.CodeResourceExhausted, "not now"), 429, ""},
		"response over the limit": {
			rpc.WithDetails(connect.NewError(connect.CodeResourceExhausted, "too large"),
				rpc.Reason(rpc.ReasonResponseTooLarge)),
			500, "",
		},
		"node deadline exceeded": {connect.NewError(connect.CodeDeadlineExceeded, "too slow"), 504, ""},
	} {
		s.setAnswer(func(context.Context, string, *dynamicpb.Message, *dynamicpb.Message) error { return tc.err })
		answer := s.send(t, http.MethodPost, "/shapes/v1/items", `{}`)
		if answer.status != tc.status || answer.header.Get("Retry-After") != tc.retryAfter ||
			!strings.HasPrefix(answer.text, `{"code":"`) {
			t.Errorf("%s: %d, Retry-After %q: %s", name, answer.status, answer.header.Get("Retry-After"), answer.text)
		}
	}
}

// The answer exceeds the gateway's bound.
func TestREST_TooLargeNodeAnswerIs500(t *testing.T) {
	s := newShapes(t, func(c *gateway.Config) { c.Upstream.MaxMessageBytes = 64 << 10 })
	s.setAnswer(func(_ context.Context, _ string, _ *dynamicpb.Message, answer *dynamicpb.Message) error {
		answer.Set(answer.Descriptor().Fields().ByName("a_string"),
			protoreflect.ValueOfString(strings.Repeat("x", 100<<10)))
		return nil
	})
	s.refuses(t, "response over the limit", s.send(t, http.MethodGet, "/shapes/v1/items", ""),
		http.StatusInternalServerError, "resource_exhausted", "the upstream's answer is too large")
}

// The headers are those of GET.
func TestREST_HEADIsGETWithoutBody(t *testing.T) {
	s := newShapes(t, nil)
	get, head := s.send(t, http.MethodGet, "/shapes/v1/items/a",
		""), s.send(t, http.MethodHead, "/shapes/v1/items/a", "")
	if head.status != http.StatusOK || head.text != "" {
		t.Errorf("%d %q", head.status, head.text)
	}
	for _, name := range []string{"Content-Type", "Content-Length", "Cache-Control", "Vary"} {
		if head.header.Get(name) == "" || head.header.Get(name) != get.header.Get(name) {
			t.Errorf("%s: %q, GET %q", name, head.header.Get(name), get.header.Get(name))
		}
	}
	if answer := s.send(
		t, http.MethodHead, "/shapes/v1/items/a", "", "Authorization", "",
	); answer.status != http.StatusUnauthorized || answer.text != "" {
		t.Errorf("no credential: %d %q", answer.status, answer.text)
	}
}

// ETag and If-None-Match work where the policy permits it.
func TestREST_EntityTagIsNotModified(t *testing.T) {
	s := newShapes(t, nil)
	position, value := "p1", "v1"
	s.setAnswer(func(_ context.Context, _ string, _, answer *dynamicpb.Message) error {
		fields := answer.Descriptor().Fields()
		answer.Set(fields.ByName("text"), protoreflect.ValueOfString(position))
		answer.Set(fields.ByName("a_string"), protoreflect.ValueOfString(value))
		return nil
	})
	first := s.send(t, http.MethodGet, "/shapes/v1/tagged/a", "")
	tag := first.header.Get("ETag")
	if first.status != http.StatusOK || !strings.HasPrefix(tag, `W/"`) ||
		first.header.Get("Cache-Control") != "private, no-cache" {
		t.Fatalf("%d, ETag %q, Cache-Control %q", first.status, tag, first.header.Get("Cache-Control"))
	}
	position = "p2" // which the tag does not depend on
	for _, values := range []string{tag, strings.TrimPrefix(tag, "W/"), `"x", ` + tag, `W/"x",W/"y, z",` + tag, "*"} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			again := s.send(t, method, "/shapes/v1/tagged/a", "", "If-None-Match", values)
			if again.status != http.StatusNotModified || again.text != "" || again.header.Get("ETag") != tag ||
				again.header.Get("Cache-Control") != "private, no-cache" ||
				!strings.Contains(strings.Join(again.header.Values("Vary"), ","), "Authorization") {
				t.Errorf("%s %s: %d %q %v", method, values, again.status, again.text, again.header)
			}
		}
	}
	for _, values := range []string{`"x"`, strings.Trim(tag, `W/"`), `W/"`} {
		if again := s.send(
			t, http.MethodGet, "/shapes/v1/tagged/a", "", "If-None-Match", values,
		); again.status != http.StatusOK {
			t.Errorf("%s: %d", values, again.status)
		}
	}
	value = "v2"
	changed := s.send(t, http.MethodGet, "/shapes/v1/tagged/a", "", "If-None-Match", tag)
	if changed.status != http.StatusOK || changed.header.Get("ETag") == tag {
		t.Errorf("changed response: %d, ETag %q", changed.status, changed.header.Get("ETag"))
	}
	if other := s.send(
		t, http.MethodGet, "/shapes/v1/items/a", "", "If-None-Match", "*",
	); other.status != http.StatusOK || other.header.Get("ETag") != "" {
		t.Errorf("method without the policy's ETag: %d, ETag %q", other.status, other.header.Get("ETag"))
	}
	denied := s.send(t, http.MethodGet, "/shapes/v1/tagged/a", "", "If-None-Match", tag, "Authorization",
		s.token(t, "acme", "query.read"))
	if denied.status != http.StatusForbidden || denied.header.Get("ETag") != "" {
		t.Errorf("missing right: %d, ETag %q", denied.status, denied.header.Get("ETag"))
	}
}
