package gateway_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/limit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
)

const (
	// attackConns is the number of connections of an attack, and attackStreams of calls on each.
	attackConns, attackStreams = 5, 40
	attackCalls                = attackConns * attackStreams
	// attackedCapacity is the attacked gateway's capacity of calls; one tenant may use tenantsPart
	// of it, and one principal or address callersPart.
	attackedCapacity, tenantsPart, callersPart = 64, 32, 4
)

func attacked(c *gateway.Config) { c.MaxConcurrent, c.MaxStreams = attackedCapacity, attackedCapacity }

// begin begins a call with these fields; the body follows.
func (r *raw) begin(id uint32, fields ...string) error {
	r.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		if fields[i+1] == "" {
			continue
		}
		if err := r.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	return r.framer.WriteHeaders(
		http2.HeadersFrameParam{StreamID: id, BlockFragment: r.block.Bytes(), EndHeaders: true},
	)
}

// forms are ways to call Query over HTTP/2, as a path and a content type.
var forms = map[string][2]string{
	"grpc":          {"/projection.gateway.v1.QueryService/Query", "application/grpc+proto"},
	"grpc-web":      {"/projection.gateway.v1.QueryService/Query", "application/grpc-web+proto"},
	"connect":       {"/projection.gateway.v1.QueryService/Query", "application/json"},
	"rest":          {"/v1/query/wallets", "application/json"},
	"health":        {"/grpc.health.v1.Health/Check", "application/grpc+proto"},
	"session":       {"/gateway.v1.SessionService/WhoAmI", "application/grpc+proto"},
	"stream":        {"/projection.gateway.v1.QueryService/Watch", "application/grpc+proto"},
	"operator":      {"/control.v1.TenantService/SuspendTenant", "application/grpc+proto"},
	"connectstream": {"/projection.gateway.v1.QueryService/Watch", "application/connect+json"},
}

// attack opens calls with endless bodies on several connections, and returns when the gateway has
// ended all of them except held. body writes the beginning of a call's body.
func attack(
	t *testing.T, url string, held int, form [2]string, body func(r *raw, id uint32) error, header ...string,
) []*raw {
	t.Helper()
	var conns []*raw
	over := make(chan struct{}, attackCalls)
	for range attackConns {
		r := connectRaw(t, url)
		conns = append(conns, r)
		var reading sync.WaitGroup
		reading.Go(func() { // until the test ends
			ended := map[uint32]bool{}
			for {
				f, err := r.framer.ReadFrame()
				if err != nil {
					return
				}
				id, last := f.Header().StreamID, false
				switch f := f.(type) {
				case *http2.MetaHeadersFrame:
					last = f.StreamEnded()
				case *http2.DataFrame:
					last = f.StreamEnded()
				case *http2.RSTStreamFrame:
					last = true
				}
				if last && !ended[id] {
					ended[id] = true
					over <- struct{}{}
				}
			}
		})
		t.Cleanup(func() { r.conn.Close(); reading.Wait() })
		for n := range attackStreams {
			id := uint32(2*n + 1)
			if err := r.begin(
				id,
				append(
					[]string{
						":method", "POST", ":scheme", "http", ":authority", "edge", ":path", form[0], "content-type",
						form[1], "te", "trailers",
					},
					header...,
				)...,
			); err != nil {
				t.Fatal(err)
			}
			if body != nil {
				if err := body(r, id); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for n := range attackCalls - held {
		select {
		case <-over:
		case <-time.After(30 * time.Second):
			t.Fatalf("%d calls: %d ended, want all except %d", attackCalls, n, held)
		}
	}
	return conns
}

// losesNothing checks that another tenant's calls succeed over every protocol.
func losesNothing(t *testing.T, e *edge, when string) {
	t.Helper()
	token := e.token(t, "globex", "query.read")
	for range 5 {
		for _, protocol := range protocols {
			if got := e.query(
				t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
			); got.err != nil {
				t.Errorf("%s: call of another tenant over %s: %v", when, protocol, got.err)
			}
		}
	}
}

func TestAdmission_UnfinishedBodiesDoNotAffectOtherTenants(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("19 kinds of bodies take half a minute; the other tests of admission run the same code")
	}
	suspended := func(t *testing.T, e *edge) {
		e.edge.SetTenants(
			map[contextkit.TenantID]gateway.TenantState{
				natstest.Tenant(t, "acme"): {Suspended: true, Reason: "unpaid"},
			},
		)
	}
	overQuota := func(t *testing.T, e *edge) {
		e.edge.SetTenants(
			map[contextkit.TenantID]gateway.TenantState{
				natstest.Tenant(t, "acme"): {Limits: limit.Config{Rate: 0.001, Burst: 1, Concurrent: 3}},
			},
		)
	}
	one := func(r *raw, id uint32) error { return r.framer.WriteData(id, false, []byte{0}) }
	for name, tc := range map[string]struct {
		arrange func(t *testing.T, e *edge)
		form    string
		tenants string // of the credential; "": there is none
		header  []string
		rights  []string
		held    int // calls that the edge holds
		body    func(r *raw, id uint32) error
	}{
		"tenant over gRPC":           {form: "grpc", tenants: "acme", held: tenantsPart},
		"tenant over gRPC-Web":       {form: "grpc-web", tenants: "acme", held: tenantsPart},
		"tenant over Connect":        {form: "connect", tenants: "acme", held: tenantsPart},
		"tenant over REST":           {form: "rest", tenants: "acme", held: tenantsPart},
		"tenant's streams over gRPC": {form: "stream", tenants: "acme", held: tenantsPart},
		"tenant's streams":           {form: "connectstream", tenants: "acme", held: tenantsPart},
		"streams already open":       {form: "grpc", tenants: "acme", held: tenantsPart, body: one},
		"suspended tenant":           {form: "grpc", tenants: "acme", arrange: suspended},
		"suspended tenant over REST": {form: "rest", tenants: "acme", arrange: suspended},
		"tenant over its quota":      {form: "grpc", tenants: "acme", arrange: overQuota, held: 3},
		"foreign tenant id":          {form: "grpc", tenants: "acme", header: []string{"x-tenant-id", "globex"}},
		"missing right":              {form: "grpc", tenants: "acme", rights: []string{"command.submit"}},
		"unknown tenant":             {form: "grpc", tenants: "acme,initech", held: callersPart},
		"tenant in the header": {
			form:    "grpc",
			tenants: "acme,initech",
			header:  []string{"x-tenant-id", "acme"},
			held:    tenantsPart,
		},
		"operator": {
			form:    "operator",
			tenants: "*",
			rights:  []string{"fleet.admin"},
			held:    callersPart,
		},
		"no credential":                     {form: "grpc"},
		"no credential over Connect":        {form: "connect"},
		"health checks":                     {form: "health", held: callersPart},
		"session service":                   {form: "session", tenants: "acme", held: tenantsPart},
		"session service for other tenants": {form: "session", tenants: "acme,initech", held: callersPart},
	} {
		t.Run(name, func(t *testing.T) {
			for _, port := range []string{"main", "grpc"} {
				t.Run(port, func(t *testing.T) {
					form := forms[tc.form]
					if port == "grpc" && form[1] != "application/grpc+proto" {
						t.Skip("the port serves gRPC only")
					}
					e := start(t, attacked)
					if tc.arrange != nil {
						tc.arrange(t, e)
					}
					header := tc.header
					if tc.tenants != "" {
						rights := tc.rights
						if rights == nil {
							rights = []string{"query.read"}
						}
						header = append(header, "authorization", e.token(t, tc.tenants, rights...))
					}
					attack(t, map[string]string{"main": e.url, "grpc": e.grpc}[port], tc.held, form, tc.body, header...)
					losesNothing(t, e, "during unfinished bodies")
				})
			}
		})
	}
}

// Bodies arrive byte by byte: below the minimum rate, or for longer than permitted.
func TestAdmission_TricklesAreCutOff(t *testing.T) {
	t.Parallel()
	bothPorts(t, func(c *gateway.Config) {
		attacked(c)
		c.Listen.BodyTimeout, c.Listen.MinBodyRate = 2*time.Second, 1<<20 // cut off by the rate after half a second
	}, func(t *testing.T, e *edge, url string) {
		conns := attack(t, url, tenantsPart, forms["grpc"], nil, "authorization", e.token(t, "acme", "query.read"))
		var trickling sync.WaitGroup
		stop := make(chan struct{})
		for _, r := range conns {
			trickling.Go(func() {
				for {
					for n := range attackStreams {
						select {
						case <-stop:
							return
						case <-time.After(5 * time.Millisecond):
						}
						if r.framer.WriteData(uint32(2*n+1), false, []byte{0}) != nil {
							return
						}
					}
				}
			})
		}
		losesNothing(t, e, "during trickled bodies")
		eventually(t, "all calls of the attack have ended", func() bool {
			_, text := e.adminGet(t, "/metrics")
			return strings.Contains(text, `headgate_in_flight{process="gateway"} 0`) &&
				strings.Contains(text, `headgate_message_bytes{process="gateway"} 0`) &&
				!strings.Contains(text, `headgate_slow_requests_total{process="gateway"} 0`)
		})
		close(stop)
		trickling.Wait()
	})
}

func TestAdmission_HTTP1BodiesDoNotAffectOtherTenants(t *testing.T) {
	e := start(t, func(c *gateway.Config) {
		attacked(c)
		c.Listen.BodyTimeout = 6 * time.Second // a slow machine opens all connections within this
	})
	token := e.token(t, "acme", "query.read")
	var conns []net.Conn
	for range 3 * tenantsPart {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(
			conn,
			"POST /v1/query/wallets HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: "+
				"100\r\nAuthorization: %s\r\n\r\n{",
			token,
		)
		conns = append(conns, conn)
	}
	eventually(t, "the tenant has reached its limit", func() bool {
		_, text := e.adminGet(t, "/metrics")
		return strings.Contains(text, fmt.Sprintf(`headgate_in_flight{process="gateway"} %d`, tenantsPart)) &&
			strings.Contains(
				text,
				fmt.Sprintf(`headgate_limited_total{process="gateway",reason="CONCURRENCY_LIMIT",scope="tenant"} %d`,
					2*tenantsPart),
			)
	})
	losesNothing(t, e, "during unfinished bodies")
	for _, conn := range conns { // each is answered and closed in the end
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Error(err)
		}
	}
}

// Calls are denied at the highest rate that the client can send.
func TestAdmission_RejectionsDoNotAffectOtherTenants(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it makes thousands of calls; other tests run the same code under the race detector")
	}
	for name, credential := range map[string]func(e *edge) string{
		"missing right":       func(e *edge) string { return e.token(t, "acme", "command.submit") },
		"foreign tenant":      func(e *edge) string { return e.token(t, "initech", "query.read") },
		"no credential":       func(*edge) string { return "" },
		"forged credential":   func(e *edge) string { return e.token(t, "acme", "query.read") + "x" },
		"over the rate limit": func(e *edge) string { return e.token(t, "acme", "query.read") },
	} {
		t.Run(name, func(t *testing.T) {
			bothPorts(t, func(c *gateway.Config) {
				attacked(c)
				c.Limits = limit.Config{Rate: 20, Burst: 200} // a slow machine exceeds the rate, too
			}, func(t *testing.T, e *edge, url string) {
				token, protocol := credential(e), map[bool]string{true: "native grpc", false: "grpc"}[url == e.grpc]
				losesNothing(t, e, "before")
				var attacking sync.WaitGroup
				stop := make(chan struct{})
				for range 16 { // each retries immediately after a rejection
					attacking.Go(func() {
						for {
							select {
							case <-stop:
								return
							default:
							}
							_ = e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
								token, "X-Tenant-Id", "acme")
						}
					})
				}
				eventually(t, "rejections are delayed", func() bool {
					_, text := e.adminGet(t, "/metrics")
					return strings.Contains(text, "headgate_rejections_delayed_total") &&
						!strings.Contains(text, `headgate_rejections_delayed_total{process="gateway"} 0`)
				})
				losesNothing(t, e, "during rejections of others")
				close(stop)
				attacking.Wait()
			})
		})
	}
}

// Denied calls use up a tenant's rate.
func TestAdmission_DenialsCountAgainstTenantsRate(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Rate: 0.001, Burst: 5} })
	query := func(tenant string, rights ...string) connect.Code {
		return e.query(t, "native grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
			e.token(t, tenant, rights...)).code
	}
	for range 5 {
		if code := query("acme", "query.read:other"); code != connect.CodePermissionDenied {
			t.Fatalf("denied call: %v", code)
		}
	}
	if code := query("acme", "query.read"); code != connect.CodeResourceExhausted {
		t.Errorf("after as many denials as the limit of calls: %v", code)
	}
	if code := query("globex", "query.read"); code != 0 {
		t.Errorf("call of another tenant: %v", code)
	}
}

func TestAdmission_TenantsBytesAreBounded(t *testing.T) {
	const size = 600 << 10 // three fit into the tenant's two megabytes
	for protocol, client := range streaming {
		t.Run(protocol, func(t *testing.T) {
			release, came := make(chan struct{}), make(chan struct{}, 7)
			h := newHall(t)
			h.say = func(context.Context) error {
				came <- struct{}{}
				<-release
				return nil
			}
			e := startWith(t, func(c *gateway.Config) { c.MaxBytes = 4 << 20 }, h.register, h.set)
			say := func(tenant string, text string) error {
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("Authorization", e.token(t, tenant, "hall.use"))
				return client(e).CallUnary(ctx, h.spec("Say"), h.word("", text), h.word())
			}
			results, other := make(chan error, 6), make(chan error, 1)
			begin := func() { go func() { results <- say("acme", strings.Repeat("x", size)) }() }
			for range 3 {
				begin()
				<-came // the complete message has arrived: an incomplete one may be rejected instead
			}
			for range 3 {
				begin()
				if err := <-results; connect.CodeOf(err) != connect.CodeResourceExhausted ||
					!strings.Contains(err.Error(), "too many bytes in memory") {
					t.Errorf("call over the tenant's byte limit: %v", err)
				}
			}
			if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
				text, `headgate_limited_total{process="gateway",reason="BYTES_LIMIT",scope="tenant"} 3`,
			) {
				t.Error("the metrics lack the rejection")
			}
			go func() { other <- say("globex", strings.Repeat("x", size)) }()
			<-came
			close(release)
			if err := <-other; err != nil {
				t.Errorf("call of another tenant: %v", err)
			}
			for range 3 {
				if err := <-results; err != nil {
					t.Errorf("call within the limit: %v", err)
				}
			}
			eventually(t, "all bytes are released", func() bool {
				_, text := e.adminGet(t, "/metrics")
				return strings.Contains(text, `headgate_message_bytes{process="gateway"} 0`)
			})
		})
	}
}

// A client that opens no window for its answers holds their streams, which no budget counts after
// the calls have ended.
func TestAdmission_UnreadAnswersAreBounded(t *testing.T) {
	bothPorts(t, func(c *gateway.Config) { c.Listen.MaxClientStreams = 50 }, func(t *testing.T, e *edge, url string) {
		r := connectRaw(t, url)
		if err := r.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
			t.Fatal(err)
		}
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_, _ = io.Copy(io.Discard, r.conn)
		}()
		for n := range 60 {
			var err error
			if url == e.url { // these answers are 401 with the reason
				err = r.begin(uint32(2*n+1), ":method", "POST", ":scheme", "http", ":authority", "edge", ":path",
					"/v1/query/wallets", "content-type", "application/json")
			} else { // an error without a message needs no window: these calls have not ended
				err = r.open(uint32(2*n+1), e.token(t, "acme", "query.read"))
			}
			if err != nil {
				break // it has been closed
			}
			if n == 45 {
				losesNothing(t, e, "client within the limit")
			}
		}
		<-closed
		losesNothing(t, e, "after the connection closed")
		if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
			text, `headgate_flood_connections_total{frame="HEADERS",process="gateway"} 1`,
		) {
			t.Error("the metrics lack the rejection")
		}
	})
}

func TestAdmission_ClientsConnectionsAreBounded(t *testing.T) {
	bothPorts(
		t, func(c *gateway.Config) { c.Listen.MaxClientConnections = 2 }, func(t *testing.T, e *edge, url string) {
			dial := func() net.Conn {
				conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				return conn
			}
			first, second, third := dial(), dial(), dial()
			_ = third.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := third.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
				t.Errorf("third connection: %v", err)
			}
			_, _ = first, second
			if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
				text, `headgate_client_connections_refused_total{process="gateway"} 1`,
			) {
				t.Error("the metrics lack the rejection")
			}
			first.Close()
			eventually(t, "another connection is admitted", func() bool {
				conn := dial()
				_, _ = io.WriteString(conn, http2.ClientPreface)
				framer := http2.NewFramer(conn, conn)
				_ = framer.WriteSettings()
				_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
				_, err := framer.ReadFrame()
				return err == nil
			})
		},
	)
}

// The attacker names a tenant that is not its own.
func TestAdmission_TenantIsChargedForItsOwnCallersOnly(t *testing.T) {
	t.Parallel()
	e := start(t, func(c *gateway.Config) { c.Limits = limit.Config{Rate: 0.001, Burst: 20} })
	hostile := e.token(t, "acme", "query.read")
	var callers sync.WaitGroup
	for range 10 { // a refusal takes a while
		callers.Go(func() {
			for range 10 {
				if got := e.query(
					t, "native grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", hostile,
					"X-Tenant-Id", "globex",
				); got.err == nil {
					t.Error("the connection is admitted")
				}
			}
		})
	}
	callers.Wait()
	if got := e.query(
		t, "native grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
		e.token(t, "globex", "query.read"),
	); got.err != nil {
		t.Errorf("call of the tenant named by the attacker: %v", got.err)
	}
}

// Health/Watch needs no credential: its streams are charged to the address, at the gateway and at
// nodes.
func TestHealthWatch_DoesNotAffectOtherTenants(t *testing.T) {
	bothPorts(t, attacked, func(t *testing.T, e *edge, url string) {
		client := connect.NewClient(connecthttp.NewTransport(e.h2c, url, connecthttp.WithGRPC()))
		spec := connect.Spec{Procedure: healthv1.Health_Watch_FullMethodName, StreamType: connect.StreamTypeServer}
		watch := func() (connect.ClientStream, error) {
			stream, err := client.CallServerStream(t.Context(), spec, &healthv1.HealthCheckRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var res healthv1.HealthCheckResponse
			if err := stream.Receive(&res); err != nil {
				_ = stream.Close()
				return nil, err
			}
			if res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
				t.Errorf("gateway state %v", res.GetStatus())
			}
			return stream, nil
		}
		var open []connect.ClientStream
		for range callersPart {
			stream, err := watch()
			if err != nil {
				t.Fatalf("watch %d: %v", len(open), err)
			}
			open = append(open, stream)
		}
		for range attackCalls {
			if _, err := watch(); connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Fatalf("watch over the address's limit: %v", err)
			}
		}
		losesNothing(t, e, "while the address holds watches")
		_ = open[0].Close()
		eventually(t, "a new watch is admitted after one ended", func() bool {
			stream, err := watch()
			if err == nil {
				open[0] = stream
			}
			return err == nil
		})
		for _, stream := range open {
			_ = stream.Close()
		}
	})
}
