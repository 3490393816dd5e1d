package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc"
)

// huge are texts of 95 KB that each encoding expands differently.
var huge = map[string]string{
	"ascii":   strings.Repeat("a", 95<<10),
	"quotes":  strings.Repeat(`"`, 95<<10),
	"control": strings.Repeat("\x01", 95<<10),
	"markup":  strings.Repeat("<", 95<<10),
	"runes":   strings.Repeat("世", 95<<10/3),
	"mixed":   strings.Repeat("😀\x00\"%\\a", 95<<10/9),
}

// answer is an uncompressed HTTP answer, as read from the wire.
type answer struct {
	status int
	size   int    // of headers, body and trailers
	text   string // all of it
}

// ask sends a request without changes.
func (e *edge) ask(t *testing.T, client *http.Client, method, url string, body []byte, header http.Header) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := answer{status: res.StatusCode, text: string(raw)}
	for _, fields := range []http.Header{res.Header, res.Trailer} {
		for key, values := range fields {
			for _, value := range values {
				out.text += "\n" + key + ": " + value
			}
		}
	}
	out.size = len(out.text)
	return out
}

// framed returns a message in gRPC's framing.
func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

// queryAnswers sends a query over every protocol at both ports, as JSON where possible, and returns
// the answers.
func (e *edge) queryAnswers(t *testing.T, token, view string) map[string]answer {
	t.Helper()
	req := &projectionv1.QueryRequest{View: view}
	wire, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(map[string]string{"view": view})
	if err != nil {
		t.Fatal(err)
	}
	const path = "/projection.gateway.v1.QueryService/Query"
	with := func(contentType string, pairs ...string) http.Header {
		header := http.Header{
			"Authorization": {token}, "Content-Type": {contentType}, "Te": {"trailers"},
			"Accept-Encoding": {"identity"},
		}
		for i := 0; i < len(pairs); i += 2 {
			header.Set(pairs[i], pairs[i+1])
		}
		return header
	}
	short := view // an address holds less
	if len(short) > 6<<10 {
		short = strings.ToValidUTF8(short[:6<<10], "")
	}
	message := base64.RawURLEncoding.EncodeToString(wire[:0])
	if part, err := proto.Marshal(&projectionv1.QueryRequest{View: short}); err == nil {
		message = base64.RawURLEncoding.EncodeToString(part)
	}
	return map[string]answer{
		"connect+json": e.ask(t, e.plain, http.MethodPost, e.url+path, asJSON,
			with("application/json", "Connect-Protocol-Version", "1")),
		"connect+proto": e.ask(t, e.plain, http.MethodPost, e.url+path, wire, with("application/proto")),
		"connect+get": e.ask(
			t, e.plain, http.MethodGet, e.url+path+"?connect=v1&encoding=proto&base64=1&message="+message, nil,
			http.Header{"Authorization": {token}},
		),
		"grpc":        e.ask(t, e.h2c, http.MethodPost, e.url+path, framed(wire), with("application/grpc")),
		"grpc+json":   e.ask(t, e.h2c, http.MethodPost, e.url+path, framed(asJSON), with("application/grpc+json")),
		"native grpc": e.ask(t, e.h2c, http.MethodPost, e.grpc+path, framed(wire), with("application/grpc")),
		"native json": e.ask(t, e.h2c, http.MethodPost, e.grpc+path, framed(asJSON), with("application/grpc+json")),
		"grpcweb": e.ask(t, e.plain, http.MethodPost, e.url+path, framed(wire),
			with("application/grpc-web+proto")),
		"rest": e.ask(t, e.plain, http.MethodPost, e.url+"/v1/query/"+url.PathEscape(short), []byte("{}"),
			with("application/json")),
	}
}

// mostAnswered bounds an error response, in bytes.
const mostAnswered = 8 << 10

func TestErrors_DoNotEchoRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("one client makes many calls; other tests cover this under the race detector")
	}
	e := start(t, nil)
	narrowed := e.token(t, "acme", "query.read:wallets")
	for kind, text := range huge {
		for protocol, got := range e.queryAnswers(t, narrowed, text) {
			if got.size > mostAnswered ||
				got.status == http.StatusOK && !strings.Contains(strings.ToLower(got.text), "grpc-status: 7") &&
					!strings.Contains(got.text, "permission_denied") {
				t.Errorf("denied, %s, %s: status %d, %d bytes: %.300s", kind, protocol, got.status, got.size, got.text)
			}
		}
	}
}

func TestErrors_NodesDoNotEchoRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("one client makes many calls; other tests cover this under the race detector")
	}
	everyUpstream(t, func(t *testing.T, start starter) {
		e := start(nil, nil)
		token := e.token(t, "acme", "query.read")
		for kind, text := range huge {
			e.node.set(func(context.Context, int) error {
				return rpc.WithDetails(connect.NewError(connect.CodeNotFound, text),
					rpc.Reason("NO_VIEW", "view", text, text, "key"))
			})
			for protocol, got := range e.queryAnswers(t, token, "wallets") {
				if got.size > mostAnswered || !strings.Contains(got.text, "bytes)") {
					t.Errorf("%s, %s: status %d, %d bytes: %.300s", kind, protocol, got.status, got.size, got.text)
				}
			}
		}
	})
}

// Requests that never become a call are not echoed either.
func TestErrors_MalformedRequestsAreNotEchoed(t *testing.T) {
	if testing.Short() {
		t.Skip("one client makes many calls; other tests cover this under the race detector")
	}
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	const path = "/projection.gateway.v1.QueryService/Query"
	header := func(contentType string, pairs ...string) http.Header {
		h := http.Header{"Authorization": {token}, "Content-Type": {contentType}, "Te": {"trailers"}}
		for i := 0; i < len(pairs); i += 2 {
			h.Set(pairs[i], pairs[i+1])
		}
		return h
	}
	long := strings.Repeat("%", 20<<10)
	address := strings.Repeat("%25", 6<<10)
	for name, got := range map[string]answer{
		"REST, no such path": e.ask(t, e.plain, http.MethodGet, e.url+"/v1/"+address, nil,
			header("application/json")),
		"REST, no such parameter": e.ask(t, e.plain, http.MethodGet, e.url+"/v1/query/wallets/x?"+address+"=1", nil,
			header("application/json")),
		"REST, content encoding": e.ask(t, e.plain, http.MethodPost, e.url+"/v1/query/wallets", []byte("{}"),
			header("application/json", "Content-Encoding", long)),
		"REST, content type": e.ask(t, e.plain, http.MethodPost, e.url+"/v1/query/wallets", []byte("{}"),
			header("text/"+strings.Repeat("x", 20<<10))),
		"REST, timeout": e.ask(t, e.plain, http.MethodPost, e.url+"/v1/query/wallets", []byte("{}"),
			header("application/json", "Connect-Timeout-Ms", long)),
		"connect, content encoding": e.ask(t, e.plain, http.MethodPost, e.url+path, []byte("{}"),
			header("application/json", "Content-Encoding", long)),
		"connect, timeout": e.ask(t, e.plain, http.MethodPost, e.url+path, []byte("{}"),
			header("application/json", "Connect-Timeout-Ms", long)),
		"connect, content type": e.ask(t, e.plain, http.MethodPost, e.url+path, []byte("{}"),
			header("application/"+strings.Repeat("x", 20<<10))),
		"connect, no such method": e.ask(t, e.plain, http.MethodPost, e.url+"/a.B/"+address, []byte("{}"),
			header("application/json")),
		"gRPC, encoding": e.ask(t, e.h2c, http.MethodPost, e.url+path, framed(nil),
			header("application/grpc", "Grpc-Encoding", long)),
		"gRPC, no such method": e.ask(t, e.h2c, http.MethodPost, e.url+"/a.B/"+address, framed(nil),
			header("application/grpc")),
		"gRPC, timeout": e.ask(t, e.h2c, http.MethodPost, e.url+path, framed(nil),
			header("application/grpc", "Grpc-Timeout", long)),
		"native, no such method": e.ask(t, e.h2c, http.MethodPost, e.grpc+"/a.B/"+address, framed(nil),
			header("application/grpc")),
		"native, malformed method": e.ask(t, e.h2c, http.MethodPost, e.grpc+"/"+address, framed(nil),
			header("application/grpc")),
	} {
		if got.size > mostAnswered || got.status == http.StatusOK && !strings.Contains(got.text, "Grpc-Status") {
			t.Errorf("%s: status %d, %d bytes: %.200s", name, got.status, got.size, got.text)
		}
	}
	for kind, text := range huge {
		name, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		for what, body := range map[string]string{
			"unknown field": `{` + string(name) + `: 1}`, "number": `{"query": {"pageSize": ` + string(name) + `}}`,
			"key twice": `{` + string(name) + `: 1,` + string(name) + `: 2}`,
		} {
			for protocol, got := range map[string]answer{
				"connect": e.ask(t, e.plain, http.MethodPost, e.url+path, []byte(body), header("application/json")),
				"grpc": e.ask(t, e.h2c, http.MethodPost, e.url+path, framed([]byte(body)),
					header("application/grpc+json")),
				"native": e.ask(t, e.h2c, http.MethodPost, e.grpc+path, framed([]byte(body)),
					header("application/grpc+json")),
				"rest": e.ask(t, e.plain, http.MethodPost, e.url+"/v1/query/wallets", []byte(body),
					header("application/json")),
			} {
				if got.size > mostAnswered ||
					protocol == "rest" && got.status != http.StatusBadRequest &&
						got.status != http.StatusRequestEntityTooLarge {
					t.Errorf("%s, %s, %s: status %d, %d bytes: %.300s", what, kind, protocol, got.status, got.size,
						got.text)
				}
			}
		}
	}
}
