package gateway_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/rpc/compression"
)

// raw is an HTTP/2 connection whose frames the test writes.
type raw struct {
	conn   net.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
}

func connectRaw(t *testing.T, url string) *raw {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r := &raw{conn: conn, framer: http2.NewFramer(conn, conn)}
	r.hpack = hpack.NewEncoder(&r.block)
	r.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := r.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return r
}

// open begins a call; the caller sends the body.
func (r *raw) open(id uint32, token string, header ...string) error {
	r.block.Reset()
	fields := append([]string{
		":method", "POST", ":scheme", "http", ":authority", "edge", ":path",
		"/projection.gateway.v1.QueryService/Query",
		"content-type", "application/grpc+proto", "te", "trailers", "authorization", token,
	}, header...)
	for i := 0; i < len(fields); i += 2 {
		if err := r.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return r.framer.WriteHeaders(
		http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true},
	)
}

// until reads frames until found returns true for one.
func (r *raw) until(t *testing.T, what string, found func(http2.Frame) bool) {
	t.Helper()
	_ = r.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		f, err := r.framer.ReadFrame()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if settings, ok := f.(*http2.SettingsFrame); ok && !settings.IsAck() {
			_ = r.framer.WriteSettingsAck()
		}
		if found(f) {
			return
		}
	}
}

// message is a gRPC message of a query.
func message(t *testing.T) []byte {
	t.Helper()
	data, err := proto.Marshal(&projectionv1.QueryRequest{View: "wallets"})
	if err != nil {
		t.Fatal(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...)
}

// bothPorts runs a test at the main port and at the gRPC-only port.
func bothPorts(t *testing.T, change func(*gateway.Config), test func(t *testing.T, e *edge, url string)) {
	t.Helper()
	for _, port := range []string{"main", "grpc"} {
		t.Run(port, func(t *testing.T) {
			e := start(t, change)
			test(t, e, map[string]string{"main": e.url, "grpc": e.grpc}[port])
		})
	}
}

// CVE-2023-44487.
func TestFlood_RapidResetsDoNotAffectOthers(t *testing.T) {
	bothPorts(t, nil, rapidResets)
}

func rapidResets(t *testing.T, e *edge, url string) {
	token := e.token(t, "acme", "query.read")
	attack := connectRaw(t, url)
	body := message(t)
	var attacking sync.WaitGroup
	attacking.Go(func() {
		for id := uint32(1); id < 80_000; id += 2 {
			if attack.open(id, token) != nil || attack.framer.WriteData(id, true, body) != nil ||
				attack.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				return // the connection has ended
			}
		}
	})
	_ = attack.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	attacking.Go(func() { _, _ = io.Copy(io.Discard, attack.conn) }) // until the edge closes it
	for range 50 {
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			t.Fatalf("another client during the attack: %v", got.err)
		}
	}
	attacking.Wait()
	eventually(t, "all calls have ended", func() bool {
		_, text := e.adminGet(t, "/metrics")
		return strings.Contains(text, `headgate_in_flight{process="gateway"} 0`) &&
			strings.Contains(text, `headgate_upstream_in_flight{process="gateway"} 0`) &&
			strings.Contains(text, `headgate_reset_connections_total{process="gateway"} 1`)
	})
}

func TestConnection_StreamsAreBounded(t *testing.T) {
	bothPorts(t, func(c *gateway.Config) { c.Listen.MaxStreams = 5 }, tooManyStreams)
}

func tooManyStreams(t *testing.T, e *edge, url string) {
	token := e.token(t, "acme", "query.read")
	r := connectRaw(t, url)
	r.until(t, "the server sends its SETTINGS", func(f http2.Frame) bool {
		settings, ok := f.(*http2.SettingsFrame)
		if !ok || settings.IsAck() {
			return false
		}
		n, said := settings.Value(http2.SettingMaxConcurrentStreams)
		return said && n == 5
	})
	for id := uint32(1); id <= 11; id += 2 { // six calls whose body never comes
		if err := r.open(id, token); err != nil {
			t.Fatal(err)
		}
	}
	r.until(t, "the sixth stream is refused", func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return f.StreamID == 11
		case *http2.GoAwayFrame:
			return true
		}
		return false
	})
}

func TestConnection_TricklingMessageEndsItsCall(t *testing.T) {
	bothPorts(t, func(c *gateway.Config) {
		c.Listen.BodyTimeout, c.MaxTimeout = 300*time.Millisecond, 300*time.Millisecond
	}, trickle)
}

func trickle(t *testing.T, e *edge, url string) {
	r := connectRaw(t, url)
	if err := r.open(1, e.token(t, "acme", "query.read")); err != nil {
		t.Fatal(err)
	}
	if err := r.framer.WriteData(1, false, message(t)[:7]); err != nil { // and no more
		t.Fatal(err)
	}
	cutOff(t, r)
}

// cutOff waits until the only call of a connection has timed out.
func cutOff(t *testing.T, r *raw) {
	t.Helper()
	r.until(t, "the call ends", func(f http2.Frame) bool {
		headers, ok := f.(*http2.MetaHeadersFrame)
		if !ok {
			return false
		}
		for _, field := range headers.Fields {
			if field.Name == "grpc-status" {
				if field.Value != fmt.Sprint(int(connect.CodeDeadlineExceeded)) {
					t.Errorf("grpc-status %s", field.Value)
				}
				return true
			}
		}
		return false
	})
}

func TestConnection_EndlessHeaderIsCutOff(t *testing.T) {
	t.Parallel() // it takes the five seconds that a header has
	e := start(t, nil)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	if _, err := io.WriteString(conn, "POST /v1/query/wallets HTTP/1.1\r\nHost: edge\r\n"); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case <-ended:
			return
		case <-deadline:
			t.Fatal("the connection is still open")
		case <-ticker.C: // slow loris: a header now and then
			_, _ = io.WriteString(conn, "X-A: b\r\n")
		}
	}
}

func TestConnections_AreBounded(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Listen.MaxConnections, c.Listen.MaxClientConnections = 2, 2 })
	dial := func() (net.Conn, *bufio.Reader) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "GET /health HTTP/1.1\r\nHost: edge\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		return conn, bufio.NewReader(conn)
	}
	served := func(lines *bufio.Reader) bool {
		line, err := lines.ReadString('\n')
		return err == nil && strings.Contains(line, "200")
	}
	first, lines := dial()
	if !served(lines) {
		t.Fatal("the first connection is not served")
	}
	if _, lines := dial(); !served(lines) {
		t.Fatal("the second connection is not served")
	}
	third, lines := dial()
	_ = third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := lines.Peek(1); err == nil {
		t.Error("a third connection is served, want a limit of two")
	}
	_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
	first.Close()
	if !served(bufio.NewReader(third)) {
		t.Error("the third connection is not served after one closed")
	}
}

func TestBounds_TooLargeIsRejected(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	large := `{"metadata":{"a":"` + strings.Repeat("x", 2<<20) + `"}}`
	deep := `{"query":` + strings.Repeat(`{"query":`, 20_000) + strings.Repeat("}", 20_001)
	packed := func(name string) string {
		for _, c := range compression.All() {
			if c.Name() == name {
				var out strings.Builder
				w, err := c.Compress(&out)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(w, large)
				_ = w.Close()
				return out.String()
			}
		}
		t.Fatalf("no %s", name)
		return ""
	}
	for name, rule := range map[string]struct {
		body     string
		encoding string
		header   string
		status   int
	}{
		"body":                {body: large, status: http.StatusTooManyRequests},
		"deep nesting":        {body: deep, status: http.StatusBadRequest},
		"gzip bomb":           {body: packed("gzip"), encoding: "gzip", status: http.StatusTooManyRequests},
		"br bomb":             {body: packed("br"), encoding: "br", status: http.StatusTooManyRequests},
		"zstd bomb":           {body: packed("zstd"), encoding: "zstd", status: http.StatusTooManyRequests},
		"header at the limit": {body: "{}", header: strings.Repeat("x", 20_000), status: http.StatusOK},
	} {
		for _, path := range []string{"/v1/query/wallets", "/projection.gateway.v1.QueryService/Query"} {
			t.Run(name+" "+path, func(t *testing.T) {
				body := rule.body
				if body == "{}" {
					body = `{"view":"wallets"}`
					if strings.HasPrefix(path, "/v1") {
						body = "{}"
					}
				}
				status, text := e.http(t, http.MethodPost, path, body, "Authorization", token, "Content-Type",
					"application/json", "Content-Encoding", rule.encoding, "X-Large", rule.header)
				want := rule.status
				if want == http.StatusTooManyRequests && strings.HasPrefix(path, "/v1") {
					want = http.StatusRequestEntityTooLarge
				}
				if status != want {
					t.Errorf("status %d, want %d: %.200s", status, want, text)
				}
			})
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/query/wallets",
		strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", token)
	req.Header.Set("X-Large", strings.Repeat("x", 100_000))
	// The edge answers and disconnects while the header is still being sent: a client may see
	// either first.
	if res, err := e.plain.Do(req); err == nil {
		res.Body.Close()
		if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("header of 100,000 bytes: status %d", res.StatusCode)
		}
	}
	if calls, _, _, _, _ := e.node.seen(); calls != 2 {
		t.Errorf("%d calls of the node, want the two within the limits", calls)
	}
}

func TestCaching_AnswersToGETArePrivate(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	for name, rule := range map[string]struct{ says, want string }{
		"no Cache-Control from the node": {"", "no-store"},
		"private with max-age":           {"max-age=60", "private, max-age=60"},
		"public":                         {"public, max-age=60, s-maxage=600", "private, max-age=60"},
	} {
		for _, path := range []string{
			"/v1/query/wallets",
			`/projection.gateway.v1.QueryService/Query?connect=v1&encoding=json&message={"view":"wallets"}`,
		} {
			t.Run(name+" "+path[:6], func(t *testing.T) {
				e.node.cacheControl.Store(&rule.says)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", token)
				res, err := e.plain.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				want := rule.want
				if rule.says == "" && strings.HasPrefix(path, "/v1/") {
					want = "private, no-cache" // with an ETag, which the client asks with again
				}
				if res.StatusCode != http.StatusOK || res.Header.Get("Cache-Control") != want ||
					!strings.Contains(strings.Join(res.Header.Values("Vary"), ","), "Authorization") {
					t.Errorf("status %d, Cache-Control %q, Vary %q", res.StatusCode, res.Header.Values("Cache-Control"),
						res.Header.Values("Vary"))
				}
			})
		}
	}
	if status, _ := e.http(t, http.MethodGet, "/v1/query/wallets", ""); status != http.StatusUnauthorized {
		t.Errorf("no credential: status %d", status)
	}
}

func TestPaths_HaveOneMeaning(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read:wallets")
	for path, want := range map[string]int{
		"/v1/query/wallets":               http.StatusOK,
		"/v1/query/wallets/":              http.StatusNotFound,
		"/v1/query//wallets":              http.StatusNotFound,
		"/v1/query/./wallets":             http.StatusNotFound,
		"/v1/query/x/../wallets":          http.StatusNotFound,
		"/v1/query/%2e%2e/query/wallets":  http.StatusNotFound,
		"/v1/query/orders%2f..%2fwallets": http.StatusForbidden, // one segment: a view of that name
		"/v1/query/wallets%00":            http.StatusForbidden,
		"/V1/query/wallets":               http.StatusNotFound,
		"/v1/query/../../projection.gateway.v1.QueryService/Query": http.StatusNotFound,
		"/projection.gateway.v1.QueryService/Query/":               http.StatusNotImplemented,
		"/x/../projection.gateway.v1.QueryService/Query":           http.StatusNotFound,
		"/projection.gateway.v1.QueryService%2fQuery":              http.StatusNotFound,
	} {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		// A raw request: net/http's client would clean the path.
		_, err = fmt.Fprintf(
			conn,
			"POST %s HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nContent-Type: application/json\r\nAuthorization: "+
				"%s\r\nContent-Length: 2\r\n\r\n{}",
			path, token,
		)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		status := res.StatusCode
		if status == http.StatusMovedPermanently || status == http.StatusTemporaryRedirect ||
			status == http.StatusPermanentRedirect {
			status = http.StatusNotFound // redirected to the clean path; no method was called
		}
		if status != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
		res.Body.Close()
		conn.Close()
	}
	if calls, _, _, _, _ := e.node.seen(); calls != 1 {
		t.Errorf("%d calls of the node, want 1", calls)
	}
}
