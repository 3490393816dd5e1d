package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/rs/zerolog"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/proxies"
	"github.com/headgate/headgate/internal/timeline"
)

// behind returns a set of trusted proxies.
func behind(t testing.TB, header string, trusted ...string) *proxies.Set {
	t.Helper()
	set, err := proxies.New(proxies.Config{Trusted: trusted, Header: header})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// ends records the ended calls.
type ends struct {
	mu   sync.Mutex
	list []gateway.Ended
}

func (e *ends) add(_ contextkit.RequestContext, ended gateway.Ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, ended)
}

// last returns the last ended call; it is recorded before the client receives the end of the
// answer.
func (e *ends) last() (ended gateway.Ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.list); n > 0 {
		ended = e.list[n-1]
	}
	return ended
}

func TestClient_AddressOfTrustedProxyHeader(t *testing.T) {
	hostile := http.Header{
		"X-Forwarded-For": {"198.51.100.1, 127.0.0.1", "203.0.113.9:4711, 127.0.0.2"},
		"Forwarded":       {`for=198.51.100.2`, `for="[2001:db8::9]:1";proto=https, for=127.0.0.3`},
		"X-Real-Ip":       {"198.51.100.3"}, "X-Forwarded-Proto": {"http, https"},
		"X-Forwarded-Host": {"evil.example.com"},
		"True-Client-Ip":   {"198.51.100.4"},
		http.CanonicalHeaderKey(contextkit.HeaderClient): {"198.51.100.5", "198.51.100.6"},
		"X_Headgate_Client": {"198.51.100.7"}, "X_Forwarded_For": {"198.51.100.8"},
	}
	for name, tc := range map[string]struct {
		proxies      *proxies.Set
		want, scheme string
	}{
		"no proxies configured": {nil, "127.0.0.1", "http"},
		"untrusted peer": {
			behind(t, "", "10.0.0.0/8", "203.0.113.9", "2001:db8::/32"), "127.0.0.1", "http",
		},
		"X-Forwarded-For":        {behind(t, "", "127.0.0.0/8"), "203.0.113.9", "https"},
		"Forwarded":              {behind(t, "forwarded", "127.0.0.0/8"), "2001:db8::9", "https"},
		"untrusted nearer proxy": {behind(t, "", "127.0.0.1"), "127.0.0.2", "https"},
	} {
		t.Run(name, func(t *testing.T) {
			ended := &ends{}
			e, m := startMirror(t, func(_ func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
				return startWith(t, func(c *gateway.Config) { c.Listen.Proxies, c.OnEnd = tc.proxies, ended.add },
					register, sets...)
			})
			header := hostile.Clone()
			header["Authorization"] = []string{e.tokenOf(t, "app", mirrorRights...)}
			header[http.CanonicalHeaderKey(contextkit.HeaderExplain)] = []string{"1"}
			for _, w := range everyWay() {
				m.set(nil, nil)
				got, seen := w.do(t, e, m, header), m.received()
				if got.err != nil || seen == nil {
					t.Fatalf("%v: %v", w, got.err)
				}
				if values := seen.Values(contextkit.HeaderClient); !slices.Equal(values, []string{tc.want}) {
					t.Errorf("%v: the node received %q, want %s", w, values, tc.want)
				}
				for name := range seen {
					if strings.Contains(strings.ToLower(name), "forwarded") || name == "X-Real-Ip" ||
						name == "True-Client-Ip" || name == "X_headgate_client" {
						t.Errorf("%v: the node received %s", w, name)
					}
				}
				var record auditlog.Record
				if err := json.Unmarshal([]byte(got.fields.Get(contextkit.HeaderDecision)), &record); err != nil ||
					record.Client != tc.want {
					t.Errorf("%v: the audit record's client is %q (%v), want %s", w, record.Client, err, tc.want)
				}
				last := ended.last()
				if addr, err := netip.ParseAddrPort(last.Client); err != nil || addr.Addr().String() != tc.want {
					t.Errorf("%v: the span's client is %q, want %s", w, last.Client, tc.want)
				}
				if w.protocol == "rest" && last.Request.Scheme != tc.scheme {
					t.Errorf("%v: scheme %q, want %s", w, last.Request.Scheme, tc.scheme)
				}
			}
		})
	}
}

// logLines is a concurrent log writer.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// has reports whether a line contains all of the texts.
func (l *logLines) has(texts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.SplitSeq(l.text.String(), "\n") {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			return true
		}
	}
	return false
}

func TestClient_AddressIsInLogAuditAndTimeline(t *testing.T) {
	e := start(t, nil)
	recorder, err := timeline.New(e.js)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := e.issuer.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	log := &logLines{}
	second := e.second(t, gateway.Config{
		Listen: rpc.Config{
			Name:    "gateway",
			Addr:    "127.0.0.1:0",
			GRPC:    "127.0.0.1:0",
			Proxies: behind(t, "", "127.0.0.1"),
		}, Auth: accepted, Timeline: recorder,
	}, zerolog.New(log))
	audited := e.records(t)
	for protocol, client := range map[string]string{
		"rest": "203.0.113.1", "native grpc": "2001:db8::2", "grpcweb": "203.0.113.3",
	} {
		id := "call-" + strings.ReplaceAll(protocol, " ", "-")
		got := second.query(
			t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
			e.token(t, "acme", "nothing.at_all"), "X-Forwarded-For", client, contextkit.HeaderCorrelationID, id,
			contextkit.HeaderTenantID, "acme",
		)
		if got.code != connect.CodePermissionDenied {
			t.Fatalf("%s: %v", protocol, got.err)
		}
		if record, _ := audited.next(t); record.Client != client || record.CorrelationID != id {
			t.Errorf("%s: audit record %+v", protocol, record)
		}
		if !log.has(`"client":"`+client+`"`, `"correlation_id":"`+id+`"`) {
			t.Errorf("%s: no line of the access log has the client %s", protocol, client)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it publishes what was recorded before it ends
	if err := recorder.Run(ctx, "g2"); err != nil {
		t.Fatal(err)
	}
	spans, _, err := timeline.Read(t.Context(), e.js, natstest.Tenant(t, "acme"), "call-rest")
	if err != nil || len(spans) != 1 || spans[0].Client != "203.0.113.1" {
		t.Errorf("timeline: %+v, %v", spans, err)
	}
}

// Calls without a credential of one client of a proxy do not affect those of its other clients,
// regardless of the headers that the client forges.
func TestClient_AddressBoundsApplyToProxysClients(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		c.MaxStreams = 32 // of which an address has two
		c.Listen.Proxies = behind(t, "", "127.0.0.1")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch := func(protocol, client string) error {
		ctx, info := connect.NewClientContext(ctx)
		info.RequestHeader().SetValues("X-Forwarded-For", []string{"198.51.100.1", client})
		spec := connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer}
		stream, err := e.client(protocol).CallServerStream(ctx, spec, &healthv1.HealthCheckRequest{})
		if err == nil {
			err = stream.Receive(&healthv1.HealthCheckResponse{})
			t.Cleanup(func() { _ = stream.Close() })
		}
		return err
	}
	for i, protocol := range []string{"grpc", "native grpc"} {
		if err := watch(protocol, "2001:db8::"+string(rune('1'+i))); err != nil { // of one /64
			t.Fatal(err)
		}
	}
	for _, protocol := range []string{"grpc", "native grpc", "grpcweb"} {
		if err := watch(protocol, "[2001:db8::3]:80"); connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s: third stream of a client: %v", protocol, err)
		}
		if err := watch(protocol, "203.0.113.9"); err != nil && protocol != "grpcweb" {
			t.Errorf("%s: call of another client: %v", protocol, err)
		}
	}
}

// A proxy holds the connections of many clients; the calls in flight of each of its clients are
// bounded instead.
func TestClient_ConnectionsOfTrustedProxyAreNotBounded(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		c.Listen.MaxClientConnections, c.Listen.MaxClientStreams = 1, 2
		c.Listen.Proxies = behind(t, "", "127.0.0.1")
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var open []connect.ClientStream
	watch := func(protocol, client string) error {
		ctx, info := connect.NewClientContext(ctx)
		info.RequestHeader().Set("X-Forwarded-For", client)
		spec := connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer}
		stream, err := e.client(protocol).CallServerStream(ctx, spec, &healthv1.HealthCheckRequest{})
		if err != nil {
			return err
		}
		if err = stream.Receive(&healthv1.HealthCheckResponse{}); err == nil {
			open = append(open, stream)
		}
		return err
	}
	t.Cleanup(func() {
		for _, stream := range open {
			_ = stream.Close()
		}
	})
	for _, call := range [][2]string{ // each over HTTP/1.1 on a separate connection
		{"connect+proto", "203.0.113.1"}, {"native grpc", "203.0.113.1"}, {"connect+proto", "203.0.113.2"},
		{"grpc", "203.0.113.2"}, {"grpcweb", "203.0.113.3"},
	} {
		if err := watch(call[0], call[1]); err != nil {
			t.Fatalf("%v: %v", call, err)
		}
	}
	for _, protocol := range []string{"connect+proto", "grpc", "native grpc", "grpcweb"} {
		err := watch(protocol, "203.0.113.1")
		if connect.CodeOf(err) != connect.CodeResourceExhausted ||
			!strings.Contains(err.Error(), "too many calls in flight") {
			t.Errorf("%s: call over the client's limit: %v", protocol, err)
		}
	}
	if status, text := e.http(
		t, http.MethodGet, "/health", "", "X-Forwarded-For", "203.0.113.1",
	); status != http.StatusTooManyRequests || !strings.HasPrefix(text, `{"code":"resource_exhausted"`) {
		t.Errorf("plain HTTP over the client's limit: %d %s", status, text)
	}
	if status, _ := e.http(
		t, http.MethodGet, "/health", "", "X-Forwarded-For", "203.0.113.4",
	); status != http.StatusOK {
		t.Errorf("another client: status %d", status)
	}
	if lines := e.series(t, "headgate_client_calls_refused_total"); len(lines) != 1 ||
		!strings.HasSuffix(lines[0], " 5") {
		t.Errorf("rejections counted as %q", lines)
	}
}
