package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// forged is the prefix of all values that neither side may pass through the gateway.
const forged = "forged value"

// mirror is a node that records the headers of its calls and answers with headers that the test
// sets, for unary calls and streams.
type mirror struct {
	*ticker

	mu                sync.Mutex
	seen              http.Header
	left              time.Duration // of the deadline, when the last call was answered
	headers, trailers http.Header
}

func (m *mirror) answer(ctx context.Context) {
	info, _ := connect.CallInfoForServerContext(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen, m.left = http.Header{}, 0
	if deadline, ok := ctx.Deadline(); ok {
		m.left = time.Until(deadline)
	}
	for name, values := range info.RequestHeader().All() {
		m.seen[http.CanonicalHeaderKey(name)] = slices.Clone(values)
	}
	for name, values := range m.headers {
		info.ResponseHeader().SetValues(name, values)
	}
	for name, values := range m.trailers {
		info.ResponseTrailer().SetValues(name, values)
	}
}

// set sets the headers and trailers of answers, and resets the recorded headers.
func (m *mirror) set(headers, trailers http.Header) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seen, m.headers, m.trailers = nil, headers, trailers
}

// remaining returns the time until the last call's deadline, 0 if it had none.
func (m *mirror) remaining() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.left
}

// received returns the headers of the last call, nil if there was none.
func (m *mirror) received() http.Header {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen
}

func (m *mirror) register(server *connect.Server) {
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: m.desc},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			if err := stream.Receive(dynamicpb.NewMessage(m.desc.Input())); err != nil {
				return err
			}
			m.answer(ctx)
			return stream.Send(dynamicpb.NewMessage(m.desc.Output()))
		},
	})
}

// startMirror starts a gateway in front of a mirror.
func startMirror(t *testing.T, start starter) (*edge, *mirror) {
	t.Helper()
	m := &mirror{ticker: newTicker(t)}
	e := start(nil, m.register, m.ticker.set(t))
	e.node.set(func(ctx context.Context, _ int) error { m.answer(ctx); return nil })
	return e, m
}

// outcome is the result for a client: all headers and trailers, and the error.
type outcome struct {
	fields http.Header
	err    error
}

// way is a protocol at one of the ports, for unary calls or streams.
type way struct {
	protocol string
	stream   bool
}

func (w way) String() string {
	if w.stream {
		return w.protocol + ", stream"
	}
	return w.protocol
}

func everyWay() (ways []way) {
	for _, protocol := range protocols {
		ways = append(ways, way{protocol, false})
		if protocol != "connect+get" {
			ways = append(ways, way{protocol, true})
		}
	}
	return ways
}

// do makes a call with the given headers.
func (w way) do(t *testing.T, e *edge, m *mirror, header http.Header) outcome {
	t.Helper()
	if w.protocol == "rest" {
		return w.rest(t, e, header)
	}
	ctx, info := connect.NewClientContext(t.Context())
	for name, values := range header {
		info.RequestHeader().SetValues(name, values)
	}
	var err error
	if w.stream {
		err = drain(ctx, e.client(w.protocol), m)
	} else {
		_, err = queriesconnect.NewQueryServiceClient(e.client(w.protocol)).Query(ctx,
			&projectionv1.QueryRequest{View: "wallets"})
	}
	fields := http.Header{}
	for _, from := range []*connect.Header{info.ResponseHeader(), info.ResponseTrailer()} {
		for name, values := range from.All() {
			fields[name] = append(fields[name], values...)
		}
	}
	return outcome{fields, err}
}

// drain reads a stream until its end.
func drain(ctx context.Context, client *connect.Client, m *mirror) error {
	spec := connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: m.desc}
	stream, err := client.CallServerStream(ctx, spec, dynamicpb.NewMessage(m.desc.Input()))
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	for err == nil {
		err = stream.Receive(dynamicpb.NewMessage(m.desc.Output()))
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (w way) rest(t *testing.T, e *edge, header http.Header) outcome {
	t.Helper()
	method, path := http.MethodPost, "/v1/query/wallets"
	if w.stream {
		method, path = http.MethodGet, "/v1/ticks/rooms/hall"
	}
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	res, err := e.plain.Do(req)
	if err != nil {
		return outcome{err: err}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return outcome{err: err}
	}
	if res.StatusCode != http.StatusOK {
		code := connect.CodeUnknown
		if res.StatusCode == http.StatusBadRequest {
			code = connect.CodeInvalidArgument
		}
		return outcome{res.Header, connect.NewError(code, string(text))}
	}
	return outcome{res.Header, nil}
}

// tokenOf issues a token of any subject, for tenant acme.
func (e *edge) tokenOf(t testing.TB, subject string, rights ...string) string {
	t.Helper()
	principal, err := auth.NewPrincipal(subject, []string{"acme"}, rights)
	if err != nil {
		t.Fatal(err)
	}
	token, err := e.issuer.Issue(principal, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + token
}

var mirrorRights = []string{"query.read", "tick.read", "gateway.explain"}

// holdsForged returns the names of the fields that have a forged value, in any case.
func holdsForged(fields http.Header) (names []string) {
	for name, values := range fields {
		if strings.Contains(strings.Join(values, "\n"), "forged") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// ownedHeaders returns the declared set, and the headers that must be in it.
func ownedHeaders() []contextkit.OwnedHeader {
	owned := contextkit.OwnedHeaders()
	for _, name := range []string{
		contextkit.HeaderPrincipal, contextkit.HeaderDecision, contextkit.HeaderExplain, contextkit.HeaderCausationID,
		contextkit.ReservedPrefix + "other",
		"access-control-allow-origin", "www-authenticate", "server", "set-cookie", "cookie", "forwarded",
		"x-forwarded-for",
	} {
		owned = append(owned,
			contextkit.OwnedHeader{Name: name, Request: contextkit.FromGateway, Answer: contextkit.FromGateway})
	}
	return owned
}

func TestOwnedHeaders_ClientsCannotForge(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		for _, w := range everyWay() {
			t.Run(w.String(), func(t *testing.T) {
				// Headers of the connection may break it: each is sent separately.
				together := map[string]http.Header{
					"once": {}, "twice": {}, "with underscores": {}, "as Connect's trailers": {},
				}
				for _, owned := range ownedHeaders() {
					name := http.CanonicalHeaderKey(strings.Replace(owned.Name, "*", "any", 1))
					switch {
					case name == "Authorization", name == http.CanonicalHeaderKey(contextkit.HeaderTenantID):
						// They decide on the call: other tests cover them.
					case owned.Request == contextkit.FromTransport:
						checkForged(t, e, m, w, token, name, http.Header{name: {forged, forged + " 2"}}, false)
					default:
						together["once"][name] = []string{forged}
						together["twice"][name] = []string{forged, forged + " 2"}
						together["with underscores"][http.CanonicalHeaderKey(
							strings.ReplaceAll(name, "-", "_"),
						)] = []string{forged}
					}
					together["as Connect's trailers"]["Trailer-"+name] = []string{forged}
				}
				for what, header := range together {
					checkForged(t, e, m, w, token, what, header, true)
				}
			})
		}
	})
}

// checkForged makes a call with forged headers and checks the headers that reach the node. A call
// that need not succeed may be rejected instead.
func checkForged(t *testing.T, e *edge, m *mirror, w way, token, what string, header http.Header, succeeds bool) {
	t.Helper()
	m.set(nil, nil)
	header["Authorization"] = []string{token}
	got, seen := w.do(t, e, m, header), m.received()
	if got.err != nil || seen == nil {
		if succeeds {
			t.Errorf("%s: %v", what, got.err)
		}
		return
	}
	if names := holdsForged(seen); len(names) > 0 {
		t.Errorf("%s: the node received %q", what, names)
	}
	if principal := seen.Values(contextkit.HeaderPrincipal); !slices.Equal(principal, []string{"app"}) {
		t.Errorf("%s: principal %q, want the credential's, once", what, principal)
	}
	if tenant := seen.Values(contextkit.HeaderTenantID); !slices.Equal(tenant, []string{"acme"}) {
		t.Errorf("%s: tenant %q", what, tenant)
	}
}

// A principal counts as the platform if it is configured and acts for every tenant; no client
// header makes it the platform.
func TestPlatformHeader_IsSetForPlatformOnly(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		m := &mirror{ticker: newTicker(t)}
		e := start(func(config *gateway.Config) { config.Platform = []string{"runner"} }, m.register, m.ticker.set(t))
		e.node.set(func(ctx context.Context, _ int) error { m.answer(ctx); return nil })
		for _, caller := range []struct {
			subject, tenant string
			want            []string
		}{
			{"runner", "*", []string{"1"}},
			{"runner", "acme", nil},
			{"Runner", "*", nil},
			{"operator", "*", nil},
			{"app", "acme", nil},
		} {
			principal, err := auth.NewPrincipal(caller.subject, []string{caller.tenant}, mirrorRights)
			if err != nil {
				t.Fatal(err)
			}
			token, err := e.issuer.Issue(principal, time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range everyWay() {
				m.set(nil, nil)
				got := w.do(t, e, m, http.Header{
					"Authorization": {"Bearer " + token},
					http.CanonicalHeaderKey(contextkit.HeaderTenantID): {"acme"},
					http.CanonicalHeaderKey(contextkit.HeaderPlatform): {"1"},
				})
				seen := m.received()
				if got.err != nil || seen == nil {
					t.Errorf("%s of %s, %v: %v", caller.subject, caller.tenant, w, got.err)
					continue
				}
				if values := seen.Values(contextkit.HeaderPlatform); !slices.Equal(values, caller.want) {
					t.Errorf("%s of %s, %v: the node received %q, want %q", caller.subject, caller.tenant, w, values,
						caller.want)
				}
			}
		}
	})
}

func TestOwnedHeaders_NodesCannotForge(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		headers, trailers := http.Header{"X-Own": {"passes"}}, http.Header{"X-Own-Trailer": {"passes"}}
		var owns []string
		for _, owned := range ownedHeaders() {
			name := http.CanonicalHeaderKey(strings.Replace(owned.Name, "*", "any", 1))
			for _, form := range []string{
				name, http.CanonicalHeaderKey(strings.ReplaceAll(name, "-", "_")), "Trailer-" + name,
				http.TrailerPrefix + name,
			} {
				owns = append(owns, form)
				headers[form], trailers[form] = []string{forged, forged + " 2"}, []string{forged}
			}
		}
		for _, w := range everyWay() {
			for _, explain := range []string{"", "1"} {
				t.Run(w.String()+explain, func(t *testing.T) {
					m.set(headers, trailers)
					got := w.do(
						t, e, m,
						http.Header{
							"Authorization": {e.tokenOf(t, "app", mirrorRights...)},
							http.CanonicalHeaderKey(contextkit.HeaderExplain): {explain},
						},
					)
					if got.err != nil || m.received() == nil {
						t.Fatalf("call ended with %v", got.err)
					}
					if names := holdsForged(got.fields); len(names) > 0 {
						t.Errorf("the client received %q of the node's %d", names, len(owns))
					}
					for _, name := range []string{"X-Own", "X-Own-Trailer"} {
						if w.protocol == "rest" && w.stream && name == "X-Own-Trailer" {
							continue // a stream of events has no trailers
						}
						if got.fields.Get(name) != "passes" {
							t.Errorf("the node's %s is lost", name)
						}
					}
					if decisions := got.fields.Values(contextkit.HeaderDecision); len(decisions) != len(explain) {
						t.Errorf("%d decisions %q, want %d", len(decisions), decisions, len(explain))
					}
				})
			}
		}
	})
}

// A node's error has headers and trailers too.
func TestOwnedHeaders_NodesCannotForgeInErrors(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		e.node.set(func(ctx context.Context, _ int) error {
			m.answer(ctx)
			return connect.NewError(connect.CodeFailedPrecondition, "not today")
		})
		fields := http.Header{
			"X-Own": {"passes"}, "Www-Authenticate": {forged}, "Access-Control-Allow-Origin": {forged},
			"Server":     {forged},
			"Set-Cookie": {forged}, "Trailer-X-Own": {forged},
			http.CanonicalHeaderKey(contextkit.HeaderDecision): {forged},
		}
		for _, w := range everyWay() {
			if w.stream {
				continue
			}
			m.set(fields, fields)
			got := w.do(t, e, m, http.Header{"Authorization": {e.tokenOf(t, "app", mirrorRights...)}})
			if names := holdsForged(got.fields); got.err == nil || len(names) > 0 ||
				got.fields.Get("X-Own") != "passes" {
				t.Errorf("%v: %v; the client received %q and X-Own %q", w, got.err, names, got.fields["X-Own"])
			}
		}
	})
}

// No protocol uses request trailers: the gateway drops all of them.
func TestOwnedHeaders_RequestTrailersAreDropped(t *testing.T) {
	e, m := startMirror(t, func(_ func(*gateway.Config), register func(*connect.Server), sets ...[]byte) *edge {
		return startWith(t, nil, register, sets...)
	})
	for name, client := range map[string]*http.Client{"HTTP/1.1": e.plain, "HTTP/2": e.h2c} {
		m.set(nil, nil)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/query/wallets",
			io.NopCloser(strings.NewReader("{}")))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", e.tokenOf(t, "app", mirrorRights...))
		req.Trailer = http.Header{http.CanonicalHeaderKey(contextkit.HeaderPrincipal): {forged}, "X-Custom": {forged}}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if seen := m.received(); res.StatusCode != http.StatusOK || len(holdsForged(seen)) > 0 ||
			seen.Get(contextkit.HeaderPrincipal) != "app" {
			t.Errorf("%s: status %d, the node received %v", name, res.StatusCode, seen)
		}
	}
}

// RFC 9110 §7.6.1: headers that Connection lists are hop-by-hop, regardless of their names.
func TestConnection_ListedHeadersAreNotForwarded(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		token := e.tokenOf(t, "app", mirrorRights...)
		for request, body := range map[string]string{
			"POST /v1/query/wallets": "{}", "GET /v1/ticks/rooms/hall": "",
			"POST " + queriesconnect.QueryServiceQueryProcedure: `{"view":"wallets"}`,
		} {
			m.set(nil, nil)
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(
				conn,
				"%s HTTP/1.1\r\nHost: gateway\r\nAuthorization: %s\r\nContent-Type: "+
					"application/json\r\nContent-Length: %d\r\n"+
					"Connection: keep-alive, x-ONE ,\tX-Two\r\nconnection: x-three, authorization, traceparent\r\n"+
					"X-One: 1\r\nX-Two: 2\r\nX-Three: gr\xfcn\r\nX-Four: 4\r\n\r\n%s", request, token, len(body), body,
			)
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			conn.Close()
			seen := m.received()
			if res.StatusCode != http.StatusOK || seen.Get("X-Four") != "4" ||
				seen.Get(contextkit.HeaderTraceparent) == "" {
				t.Errorf("%s: status %d, the node received %v", request, res.StatusCode, seen)
			}
			for _, name := range []string{"X-One", "X-Two", "X-Three", "Connection"} {
				if seen.Get(name) != "" {
					t.Errorf("%s: the node received %s", request, name)
				}
			}
		}
	})
}

func TestPrincipal_AnySubjectReachesNode(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e, m := startMirror(t, start)
		for _, subject := range []string{
			"app", "auth0|5f7c+x@example.com", "100%", "%41", "Zoë", "josé", "名前", "🦊", "Ada Lovelace", " outer ",
			"a\r\nx-headgate-decision: b", "tab\tnul\x00",
		} {
			want := strings.Replace(subject, "key:", "token:key:", 1) // a token's subject is no API key's name
			for _, w := range everyWay() {
				m.set(nil, nil)
				got := w.do(
					t, e, m,
					http.Header{
						"Authorization": {e.tokenOf(t, subject, mirrorRights...)},
						http.CanonicalHeaderKey(contextkit.HeaderExplain): {"1"},
					},
				)
				seen := m.received()
				if got.err != nil || seen == nil || contextkit.Principal(fields{seen}) != want {
					t.Errorf("%v: subject %q, the node received %q: %v", w, subject,
						seen[http.CanonicalHeaderKey(contextkit.HeaderPrincipal)], got.err)
				}
				if decision := got.fields.Get(contextkit.HeaderDecision); !strings.Contains(decision, "principal") ||
					strings.ContainsFunc(decision, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("%v: decision on %q is %q, want ASCII JSON", w, subject, decision)
				}
			}
		}
	})
}

// fields is an http.Header as contextkit's metadata.
type fields struct{ http.Header }

func (f fields) Values(key string) []string { return f.Header.Values(key) }
