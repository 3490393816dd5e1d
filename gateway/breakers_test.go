package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/breaker"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// tenantOf returns the tenant of a node's call.
func tenantOf(ctx context.Context) string {
	rc, _ := contextkit.FromContext(ctx)
	return rc.TenantID.String()
}

// bystander is a tenant during an attack: it calls continuously, and has a stream.
type bystander struct {
	calls atomic.Int64
	stop  func()
	echo  func() // sends a message on the stream, and awaits it
}

// beside starts a bystander of the tenant acme, whose calls must all be answered.
func (e *edge) beside(t *testing.T, r *room) *bystander {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", e.token(t, "acme", "room.talk"))
	stream, err := e.client("native grpc").CallClientStream(ctx,
		connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	b := &bystander{echo: func() {
		t.Helper()
		if err := errors.Join(
			stream.Send(r.note("acme", "hall", "hello")), stream.Receive(dynamicpb.NewMessage(r.desc.Output())),
		); err != nil {
			t.Errorf("the other tenant's stream ended: %v", err)
		}
	}}
	b.echo()
	token, stopped := e.token(t, "acme", "query.read"), make(chan struct{})
	var calls sync.WaitGroup
	calls.Go(func() {
		for {
			select {
			case <-stopped:
				return
			default:
			}
			if res := e.query(
				t, "native grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
			); res.err != nil {
				t.Errorf("call %d of the other tenant: %v", b.calls.Load(), res.err)
				return
			}
			b.calls.Add(1)
		}
	})
	b.stop = func() {
		t.Helper()
		close(stopped)
		calls.Wait()
		b.echo()
		if b.calls.Load() == 0 {
			t.Error("the other tenant made no call")
		}
	}
	return b
}

// quietly makes the node block globex's calls until they end, and answer the others.
func quietly(ctx context.Context, _ int) error {
	if tenantOf(ctx) != "globex" {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

func TestBreaker_OneTenantsCallsDoNotAffectAnother(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("its nodes' deadlines are too short under the race detector")
	}
	query := func(header ...string) func(*testing.T, *edge) {
		return func(t *testing.T, e *edge) {
			t.Helper()
			token := e.token(t, "globex", "query.read")
			e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"},
				append([]string{"Authorization", token}, header...)...)
		}
	}
	for name, attack := range map[string]struct {
		change func(*gateway.Config)
		node   func(ctx context.Context, call int) error
		call   func(*testing.T, *edge)
		rounds int
	}{
		"short client deadlines": {nil, quietly, query("Connect-Timeout-Ms", "1100"), 1},
		"tiny client deadlines":  {nil, quietly, query("Connect-Timeout-Ms", "40"), 3},
		"calls past the policy's deadline": {
			func(c *gateway.Config) { c.MaxTimeout, c.Breakers.FirstPause = 300*time.Millisecond, time.Hour }, quietly,
			query(), 3,
		},
		"clients cancel": {nil, quietly, func(t *testing.T, e *edge) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+"/v1/query/wallets",
				strings.NewReader("{}"))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", e.token(t, "globex", "query.read"))
			if res, err := e.plain.Do(req); err == nil {
				_ = res.Body.Close()
			}
		}, 3},
		"calls rejected by the node": {
			func(c *gateway.Config) { c.Breakers.FirstPause = time.Hour }, func(ctx context.Context, _ int) error {
				if tenantOf(ctx) == "globex" {
					return connect.NewError(connect.CodeUnavailable, "the views are being built")
				}
				return nil
			}, query(), 3,
		}, // answers to the other come in between
	} {
		t.Run(name, func(t *testing.T) {
			everyUpstream(t, func(t *testing.T, start starter) {
				r := newRoom(t)
				e := start(attack.change, r.register, r.set)
				e.node.set(attack.node)
				other := e.beside(t, r)
				for range attack.rounds {
					var group sync.WaitGroup
					for range 12 {
						group.Go(func() { attack.call(t, e) })
					}
					group.Wait()
				}
				other.stop()
			})
		})
	}
}

// The other tenant makes no calls in between, which would close a breaker.
func TestBreaker_OpenedByOneTenantRejectsOnlyThatTenant(t *testing.T) {
	for name, node := range map[string]func(ctx context.Context, call int) error{
		"policy timeouts": quietly,
		"refusals": func(ctx context.Context, _ int) error {
			if tenantOf(ctx) == "globex" {
				return connect.NewError(connect.CodeUnavailable, "not now")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			e := startWith(
				t, func(c *gateway.Config) { c.MaxTimeout, c.Breakers.FirstPause = 300*time.Millisecond, time.Hour },
				r.register, r.set,
			)
			e.node.set(node)
			globex := e.token(t, "globex", "query.read")
			var group sync.WaitGroup
			for range 10 {
				group.Go(
					func() { e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", globex) },
				)
			}
			group.Wait()
			if got := e.query(
				t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", globex,
			); got.err == nil || !strings.Contains(got.err.Message(), "does not answer") {
				t.Errorf("next call of the same tenant: %v", got.err)
			}
			if open := e.edge.OpenBreakers(); len(open) > 0 {
				t.Errorf("breaker open for all tenants: %v", open)
			}
			if _, text := e.adminGet(t, "/metrics"); !strings.Contains(
				text, `headgate_single_tenant_breakers_open{process="gateway"} 1`,
			) {
				t.Errorf("the metrics do not show the tenant's breaker:\n%s", text)
			}
			if _, text := e.adminGet(t, "/nodes"); !strings.Contains(text, `"tenant":"globex"`) {
				t.Errorf("/nodes does not name the tenant whose calls are rejected: %s", text)
			}
			if got := e.query(
				t, "rest", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
				e.token(t, "acme", "query.read"),
			); got.err != nil {
				t.Errorf("call of another tenant: %v", got.err)
			}
		})
	}
}

// A deadline that a client chose does not count against the node, even if it is close to the
// policy's.
func TestBreaker_ClientDeadlineDoesNotCount(t *testing.T) {
	t.Parallel()
	everyUpstream(t, func(t *testing.T, start starter) {
		r := newRoom(t)
		e := start(func(c *gateway.Config) { c.MaxTimeout, c.Breakers.FirstPause = time.Second, time.Hour }, r.register,
			r.set)
		e.node.set(quietly)
		var group sync.WaitGroup
		for i := range 24 {
			token := e.token(t, "globex", "query.read")
			header := [][]string{{"Connect-Timeout-Ms", "900"}, {"Connect-Timeout-Ms", "600"}}[i%2]
			group.Go(func() {
				e.query(t, "rest", &projectionv1.QueryRequest{View: "wallets"},
					append(header, "Authorization", token)...)
			})
		}
		group.Wait()
		_, text := e.adminGet(t, "/metrics")
		if open := e.edge.OpenBreakers(); len(open) > 0 ||
			!strings.Contains(text, `headgate_single_tenant_breakers_open{process="gateway"} 0`) {
			t.Errorf("breakers are open: %q, or the tenant's own:\n%s", open, text)
		}
	})
}

func TestBreaker_TimeoutsOfTwoTenantsDivertMethodAndEndNoStream(t *testing.T) {
	r := newRoom(t)
	e := startWith(t, func(c *gateway.Config) { c.MaxTimeout, c.Breakers.FirstPause = 300*time.Millisecond, time.Hour },
		r.register, r.set)
	e.node.set(func(ctx context.Context, _ int) error { <-ctx.Done(); return ctx.Err() })
	ctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("Authorization", e.token(t, "acme", "room.talk"))
	stream, err := e.client("grpc").CallClientStream(ctx,
		connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	talk := func() error {
		return errors.Join(stream.Send(r.note("acme", "hall", "hello")),
			stream.Receive(dynamicpb.NewMessage(r.desc.Output())))
	}
	if err := talk(); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 10 {
		token := e.token(t, []string{"acme", "globex"}[i%2], "query.read")
		group.Go(func() { e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token) })
	}
	group.Wait()
	e.node.set(nil)
	if err := talk(); err != nil {
		t.Errorf("the breaker ended a stream of the same node: %v", err)
	}
	got := e.query(t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization",
		e.token(t, "initech", "query.read"))
	if got.code != connect.CodeUnavailable || !strings.Contains(got.err.Message(), "does not answer") {
		t.Errorf("the method is still called: %v", got.err)
	}
	open := e.edge.OpenBreakers()
	if len(open) != 1 || !strings.HasSuffix(open[0], " /projection.gateway.v1.QueryService/Query") {
		t.Errorf("open breakers: got %q, want the method's", open)
	}
	if _, text := e.adminGet(t, "/metrics"); !strings.Contains(text, `headgate_method_breaker_open{`) ||
		!strings.Contains(text, `procedure="/projection.gateway.v1.QueryService/Query",process="gateway"} 1`) {
		t.Errorf("the metrics do not show the method's breaker:\n%s", text)
	}
	// Another node has the method.
	other := startMember(t, contextkit.KindProjection, "other")
	var nodes []*member
	for _, node := range e.routes.Nodes() {
		nodes = append(nodes, &member{node: node})
	}
	e.replace(t, append(nodes, other)...)
	for _, tenant := range []string{"acme", "globex", "initech", "umbrella", "hooli"} {
		if got := e.query(
			t, "grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", e.token(t, tenant, "query.read"),
		); got.err != nil {
			t.Errorf("%s is not routed to the other node: %v", tenant, got.err)
		}
	}
}

func TestBreaker_IdleStreamDoesNotExcludeNode(t *testing.T) {
	r := newRoom(t)
	var well atomic.Bool
	begun := make(chan struct{}, 16)
	register := func(server *connect.Server) {
		server.Register(connect.Method{
			Spec: connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc},
			Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
				if !well.Load() {
					return connect.NewError(connect.CodeUnavailable, "not now")
				}
				note := dynamicpb.NewMessage(r.desc.Input())
				if err := stream.Receive(note); err != nil {
					return err
				}
				if strings.Contains(r.fields(note), "quiet") {
					begun <- struct{}{}
					<-ctx.Done()
					return ctx.Err()
				}
				return stream.Send(note)
			},
		})
	}
	e := startWith(t, func(c *gateway.Config) { c.Breakers = breaker.Config{FirstPause: 50 * time.Millisecond} },
		register, r.set)
	talk := func(text string) (receive func() error, end func()) {
		ctx, info := connect.NewClientContext(t.Context())
		ctx, cancel := context.WithCancel(ctx)
		info.RequestHeader().Set("Authorization", e.token(t, "acme", "room.talk"))
		stream, err := e.client("native grpc").CallClientStream(ctx,
			connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.Send(r.note("acme", "hall", text)) // Receive returns the outcome
		return func() error {
			return stream.Receive(
				dynamicpb.NewMessage(r.desc.Output()),
			)
		}, func() { cancel(); _ = stream.Close() }
	}
	for range 5 {
		receive, end := talk("hello")
		_ = receive()
		end()
	}
	opens := func() bool {
		_, text := e.adminGet(t, "/nodes")
		return strings.Contains(text, `"breakers":`)
	}
	if !opens() {
		t.Fatal("rejections open no breaker")
	}
	well.Store(true)
	eventually(t, "idle stream as the trial", func() bool {
		_, end := talk("quiet")
		t.Cleanup(end)
		select {
		case <-begun:
			return true
		case <-time.After(20 * time.Millisecond):
			return false // it is refused
		}
	})
	eventually(t, "the node is called concurrently with the idle stream", func() bool {
		receive, end := talk("hello")
		defer end()
		return receive() == nil
	})
	if opens() {
		t.Error("the answer does not close the breaker")
	}
}

func TestDeadline_NodesVerdictArrives(t *testing.T) {
	const verdict = "the view has not reached min_position"
	everyUpstream(t, func(t *testing.T, start starter) {
		e := start(nil, nil)
		e.node.set(func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return connect.NewError(connect.CodeDeadlineExceeded, verdict)
		})
		token := e.token(t, "acme", "query.read")
		for _, protocol := range []string{"rest", "grpc", "native grpc", "connect+json"} {
			t.Run(protocol, func(t *testing.T) {
				// On a busy machine some verdicts are later than the margin; without a margin
				// hardly any arrives.
				var verdicts map[string]int
				for range 3 {
					if verdicts = e.verdicts(t, protocol, token, 20); verdicts[verdict] >= 15 {
						return
					}
				}
				t.Errorf("%d of 20 outcomes recorded: %v", verdicts[verdict], verdicts)
			})
		}
	})
}

// verdicts counts the error messages of calls that exceed their deadlines, five at a time.
func (e *edge) verdicts(t *testing.T, protocol, token string, calls int) map[string]int {
	t.Helper()
	var (
		mu     sync.Mutex
		counts = map[string]int{}
		group  errgroup.Group
	)
	group.SetLimit(5)
	for range calls {
		group.Go(func() error {
			message := e.timedOut(t, protocol, token, 100*time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			counts[message]++
			return nil
		})
	}
	_ = group.Wait() // there is no error
	return counts
}

// timedOut makes a query with a timeout that only its header has, and returns the error message.
func (e *edge) timedOut(t *testing.T, protocol, token string, timeout time.Duration) string {
	t.Helper()
	if protocol == "rest" {
		res := e.query(t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
			"Connect-Timeout-Ms", fmt.Sprint(timeout.Milliseconds()))
		if res.err == nil {
			return "no error"
		}
		return res.err.Message()
	}
	return e.rawQuery(t, protocol, token, timeout)
}

// rawQuery makes a query over HTTP with a timeout in its header, and returns the error message.
func (e *edge) rawQuery(t *testing.T, protocol, token string, timeout time.Duration) string {
	t.Helper()
	url, contentType, body := e.url, "application/json", `{"view": "wallets"}`
	client, header := e.plain, [2]string{"Connect-Timeout-Ms", fmt.Sprint(timeout.Milliseconds())}
	if protocol != "connect+json" {
		wire, err := proto.Marshal(&projectionv1.QueryRequest{View: "wallets"})
		if err != nil {
			t.Fatal(err)
		}
		contentType, client, header = "application/grpc", e.h2c, [2]string{
			"Grpc-Timeout", fmt.Sprintf("%dm", timeout.Milliseconds()),
		}
		body = string(append([]byte{0, 0, 0, 0, byte(len(wire))}, wire...))
	}
	if protocol == "native grpc" {
		url = e.grpc
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		url+"/projection.gateway.v1.QueryService/Query", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Te", "trailers")
	req.Header.Set("Authorization", token)
	req.Header.Set(header[0], header[1])
	res, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var verdict struct{ Message string }
	if contentType == "application/json" {
		if err := json.NewDecoder(res.Body).Decode(&verdict); err != nil {
			return err.Error()
		}
		return verdict.Message
	}
	if _, err := res.Body.Read(make([]byte, 1)); err == nil {
		return "a message"
	} else if message := res.Trailer.Get("Grpc-Message"); message != "" {
		return message
	}
	return res.Header.Get("Grpc-Message")
}

func TestDeadline_NodesIsEarlierThanGateways(t *testing.T) {
	everyUpstream(t, func(t *testing.T, start starter) {
		e := start(nil, nil)
		token := e.token(t, "acme", "query.read")
		for _, timeout := range []time.Duration{
			60 * time.Millisecond, 250 * time.Millisecond, 2 * time.Second, time.Minute,
		} {
			for _, protocol := range []string{"connect+json", "native grpc"} {
				e.node.set(nil)
				message := e.rawQuery(t, protocol, token, timeout)
				calls, _, _, left, _ := e.node.seen()
				if (calls == 0 || left <= 0) && timeout < time.Second {
					continue // the machine was slower than the deadline
				}
				gateways := min(timeout, 5*time.Second) - contextkit.DeadlineMargin // the policy's at most
				if want := contextkit.CalleeTime(gateways); calls != 1 || left <= 0 || left > want {
					t.Errorf(
						"%s, %v: the node's timeout is %v of the gateway's %v, want at most %v: %s", protocol, timeout,
						left, gateways, want, message,
					)
				}
			}
		}
	})
}

func TestDeadline_TinyClientDeadlineIsNeverNegative(t *testing.T) {
	e := start(t, nil)
	token := e.token(t, "acme", "query.read")
	var lefts []time.Duration
	e.node.set(func(ctx context.Context, _ int) error {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("the node received no deadline")
		}
		lefts = append(lefts, time.Until(deadline))
		return nil
	})
	for ms := range 60 {
		e.rawQuery(t, "connect+json", token, time.Duration(ms+1)*time.Millisecond)
	}
	if len(lefts) > 0 && slices.Max(lefts) > 60*time.Millisecond {
		t.Errorf("the node's timeout is %v", slices.Max(lefts))
	}
}

func TestStream_EndAndDenialDoNotRace(t *testing.T) {
	r := newRoom(t)
	register := func(server *connect.Server) {
		server.Register(connect.Method{
			Spec: connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc},
			Handler: func(_ context.Context, _ connect.Spec, stream connect.ServerStream) error {
				return stream.Receive(dynamicpb.NewMessage(r.desc.Input()))
			},
		})
	}
	e := startWith(t, nil, register, r.set)
	token := e.token(t, "acme", "room.talk:hall")
	var group sync.WaitGroup
	for range 6 {
		group.Go(func() {
			for range 200 {
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("Authorization", token)
				stream, err := e.client("grpc").CallClientStream(ctx,
					connect.Spec{Procedure: "/test.Room/Talk", StreamType: connect.StreamTypeBidi, Schema: r.desc})
				if err != nil {
					t.Error(err)
					return
				}
				// The node ends the stream with the first; the second is denied.
				_ = stream.Send(r.note("acme", "hall", "one"))
				_ = stream.Send(r.note("acme", "attic", "two"))
				err = stream.Receive(dynamicpb.NewMessage(r.desc.Output()))
				if code := connect.CodeOf(err); err == nil || code == connect.CodeInternal {
					t.Errorf("stream ended with %v", err)
				}
				_ = stream.Close()
			}
		})
	}
	group.Wait()
}
