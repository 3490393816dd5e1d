package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// ticker is a service that the gateway knows from a descriptor set only: it streams numbers after
// the requested position.
type ticker struct {
	file *descriptorpb.FileDescriptorProto
	desc protoreflect.MethodDescriptor
	ask  chan string // what a stream was asked for
	next chan int    // the numbers to send; closed: the stream ends well
	fail error
	done chan struct{} // a stream has ended at the node
}

func newTicker(t *testing.T) *ticker {
	t.Helper()
	options := &descriptorpb.MethodOptions{}
	proto.SetExtension(options, policyv1.E_Policy, &policyv1.Policy{
		Right:        "tick.read",
		TenantScope:  policyv1.TenantScope_TENANT_SCOPE_TENANT,
		Upstream:     "ticker",
		Timeout:      durationpb.New(20 * time.Second),
		TenantField:  "tenant_id",
		EventIdField: "position",
		ResumeField:  "after",
	})
	proto.SetExtension(options, annotations.E_Http, &annotations.HttpRule{
		Pattern: &annotations.HttpRule_Get{Get: "/v1/ticks/{name=rooms/*}"},
		AdditionalBindings: []*annotations.HttpRule{
			{Pattern: &annotations.HttpRule_Get{Get: "/v1/positions/{name=rooms/*}"}, ResponseBody: "position"},
			{
				Pattern:      &annotations.HttpRule_Post{Post: "/v1/{name=rooms/*}:ask"},
				Body:         "after",
				ResponseBody: "position",
			},
		},
	})
	text := func(name string, number int32) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{
			Name:   proto.String(name),
			Number: proto.Int32(number),
			Type:   descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
			Label:  descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}
	}
	ticks := &ticker{
		ask:  make(chan string, 1),
		next: make(chan int),
		done: make(chan struct{}, 8),
		file: &descriptorpb.FileDescriptorProto{
			Name:    proto.String("test/ticker.proto"),
			Package: proto.String("test"),
			Syntax:  proto.String("proto3"),
			MessageType: []*descriptorpb.DescriptorProto{
				{
					Name: proto.String("WatchRequest"),
					Field: []*descriptorpb.FieldDescriptorProto{
						text("tenant_id", 1), text("name", 2), text("after", 3),
					},
				},
				{
					Name:  proto.String("Tick"),
					Field: []*descriptorpb.FieldDescriptorProto{text("tenant_id", 1), text("position", 2)},
				},
			},
			Service: []*descriptorpb.ServiceDescriptorProto{
				{Name: proto.String("Ticker"), Method: []*descriptorpb.MethodDescriptorProto{{
					Name: proto.String("Watch"), InputType: proto.String(".test.WatchRequest"),
					OutputType: proto.String(".test.Tick"), ServerStreaming: proto.Bool(true), Options: options,
				}}},
			},
		},
	}
	fd, err := protodesc.NewFile(ticks.file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	ticks.desc = fd.Services().Get(0).Methods().Get(0)
	return ticks
}

func (k *ticker) set(t *testing.T) []byte {
	t.Helper()
	data, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{k.file}})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (k *ticker) register(server *connect.Server) {
	server.Register(connect.Method{
		Spec: connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: k.desc},
		Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
			defer func() { k.done <- struct{}{} }()
			req := dynamicpb.NewMessage(k.desc.Input())
			if err := stream.Receive(req); err != nil {
				return err
			}
			get := func(name protoreflect.Name) string { return req.Get(k.desc.Input().Fields().ByName(name)).String() }
			k.ask <- get("tenant_id") + " " + get("name") + " after " + get("after")
			for {
				select {
				case n, more := <-k.next:
					if !more {
						return k.fail
					}
					tick := dynamicpb.NewMessage(k.desc.Output())
					tick.Set(k.desc.Output().Fields().ByName("position"), protoreflect.ValueOfString(fmt.Sprint(n)))
					if err := stream.Send(tick); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	})
}

// watch opens a REST stream, with headers that are not empty, and returns its lines one by one.
func (e *edge) watch(t *testing.T, header ...string) (*http.Response, *bufio.Reader) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.url+"/v1/ticks/rooms/hall", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Add(header[i], header[i+1])
		}
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res, bufio.NewReader(res.Body)
}

func TestStream_RESTSendsEventsOrLinesImmediately(t *testing.T) {
	for _, tc := range []struct {
		name, accept, media string
		message             func(n int) []string
		failure             []string
	}{
		{"events", "text/event-stream", "text/event-stream", func(n int) []string {
			return []string{fmt.Sprintf("id: %d", n), fmt.Sprintf(`data: {"position":"%d"}`, n), ""}
		}, []string{"event: error", `data: {"error":{"code":"aborted","message":"the hall is closed"}}`, ""}},
		{
			"lines", "*/*", "application/x-ndjson",
			func(n int) []string { return []string{fmt.Sprintf(`{"position":"%d"}`, n)} },
			[]string{`{"error":{"code":"aborted","message":"the hall is closed"}}`},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ticks := newTicker(t)
			e := startWith(t, nil, ticks.register, ticks.set(t))
			ticks.fail = connect.NewError(connect.CodeAborted, "the hall is closed")
			opened := make(chan struct{})
			go func() {
				defer close(opened)
				ticks.next <- 1 // the response begins with its first message
			}()
			res, lines := e.watch(t, "Authorization", e.token(t, "acme", "tick.read"), "Accept", tc.accept,
				"Last-Event-ID", "41")
			<-opened
			if got := <-ticks.ask; got != "acme rooms/hall after 41" {
				t.Errorf("the node received %q", got)
			}
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != tc.media {
				t.Fatalf("status %d, %s", res.StatusCode, res.Header.Get("Content-Type"))
			}
			expect := func(want []string) {
				t.Helper()
				for _, line := range want {
					if got, err := lines.ReadString('\n'); err != nil || strings.TrimSuffix(got, "\n") != line {
						t.Fatalf("line %q, %v; want %q", got, err, line)
					}
				}
			}
			expect(tc.message(1)) // before the second is sent: nothing is held back
			ticks.next <- 2
			expect(tc.message(2))
			close(ticks.next)
			expect(tc.failure)
			if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
				t.Errorf("after the end of the stream: %q, %v", rest, err)
			}
		})
	}
}

func TestRule_ResponseBodyIsOneField(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register, ticks.set(t))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		ticks.next <- 1
		ticks.next <- 2
		close(ticks.next)
	}()
	status, text := e.http(t, http.MethodGet, "/v1/positions/rooms/hall", "", "Authorization",
		e.token(t, "acme", "tick.read"))
	<-sent
	if status != http.StatusOK || text != "\"1\"\n\"2\"\n" {
		t.Errorf("%d %q", status, text)
	}
	_, document := e.http(t, http.MethodGet, "/openapi.json", "", "Authorization", e.token(t, "acme", "tick.read"))
	var doc struct {
		Paths map[string]map[string]struct {
			Responses map[string]struct {
				Content map[string]struct{ Schema map[string]any }
			}
		}
	}
	if err := json.Unmarshal([]byte(document), &doc); err != nil {
		t.Fatal(err)
	}
	answers := doc.Paths["/v1/positions/rooms/{rooms}"]["get"].Responses
	if schema := answers["200"].Content["application/x-ndjson"].Schema; schema["type"] != "string" {
		t.Errorf("documented response: %v", schema)
	}
}

func TestRule_BodyIsOneField(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register, ticks.set(t))
	token := e.token(t, "acme", "tick.read")
	close(ticks.next) // a stream ends immediately
	for body, want := range map[string]string{
		`"7"`:                     "acme rooms/hall after 7",
		` "7" `:                   "acme rooms/hall after 7",
		``:                        "acme rooms/hall after ",
		`"7","tenantId":"globex"`: "",
		`"7"} {"after":"8"`:       "",
		`7,`:                      "",
		`{"after":"7"}`:           "",
	} {
		status, text := e.http(t, http.MethodPost, "/v1/rooms/hall:ask", body, "Authorization", token)
		asked := ""
		select {
		case asked = <-ticks.ask:
		default:
		}
		if asked != want || (want == "") != (status == http.StatusBadRequest) {
			t.Errorf("%s: %d %s, the node received %q, want %q", body, status, text, asked, want)
		}
	}
}

func TestStream_RejectedBeforeStartIsPlainError(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register, ticks.set(t))
	res, body := e.watch(t, "Authorization", e.token(t, "acme", "query.read"), "Accept", "text/event-stream")
	if text, _ := io.ReadAll(body); res.StatusCode != http.StatusForbidden ||
		!strings.Contains(string(text), "permission_denied") {
		t.Errorf("status %d: %s", res.StatusCode, text)
	}
}

func TestDescribe_ServiceIsServedImmediately(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register) // the node serves it, and the gateway does not know
	token := e.token(t, "acme", "tick.read", "query.read")
	if status, _ := e.http(
		t, http.MethodGet, "/v1/positions/rooms/hall", "", "Authorization", token,
	); status != http.StatusNotFound {
		t.Fatalf("before the service is known: status %d", status)
	}
	// A call in flight during the change ends as it began.
	entered, release := make(chan struct{}), make(chan struct{})
	e.node.set(func(context.Context, int) error {
		close(entered)
		<-release
		return nil
	})
	flying := make(chan result, 1)
	go func() {
		flying <- e.query(t, "native grpc", &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token)
	}()
	<-entered
	if err := e.edge.Describe("t", "ticker", time.Time{}, ticks.set(t)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if got := <-flying; got.err != nil {
		t.Errorf("call in flight: %v", got.err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		ticks.next <- 1
		close(ticks.next)
	}()
	status, text := e.http(t, http.MethodGet, "/v1/positions/rooms/hall", "", "Authorization", token)
	<-sent
	if status != http.StatusOK || text != "\"1\"\n" {
		t.Errorf("after the service is known: %d %q", status, text)
	}
	e.node.set(nil)
	for _, protocol := range protocols { // what was served still is
		if got := e.query(
			t, protocol, &projectionv1.QueryRequest{View: "wallets"}, "Authorization", token,
		); got.err != nil {
			t.Errorf("%s: %v", protocol, got.err)
		}
	}
	if _, document := e.http(
		t, http.MethodGet, "/openapi.json", "", "Authorization", token,
	); !strings.Contains(document, "/v1/ticks/rooms/{rooms}") {
		t.Error("the new service is not documented")
	}
	// An invalid description changes nothing; another description of the same node replaces the
	// first.
	if err := e.edge.Describe("other", "ticker", time.Now(), []byte("no descriptor set")); err == nil {
		t.Error("malformed descriptor set is valid, want an error")
	}
	ticks.file.MessageType[1].Field[1].JsonName = proto.String("place")
	if err := e.edge.Describe("t", "ticker", time.Time{}, ticks.set(t)); err != nil {
		t.Errorf("node restarted with another version: %v", err)
	}
}

func TestDescribe_TwoVersionsOfService(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register)
	token := e.token(t, "acme", "tick.read")
	old := ticks.set(t)
	ticks.file.MessageType[1].Field[1].JsonName = proto.String("place")
	renamed := ticks.set(t)
	ticks.file.Name, ticks.file.Package = proto.String(
		"test/v2/ticker.proto",
	), proto.String("test.v2") // at the same paths
	for _, method := range ticks.file.Service[0].Method {
		method.InputType, method.OutputType = proto.String(".test.v2.WatchRequest"), proto.String(".test.v2.Tick")
	}
	moved := ticks.set(t)
	at := func(hour int) time.Time { return time.Date(2026, 1, 1, hour, 0, 0, 0, time.UTC) }
	for _, step := range []struct {
		what, node string
		started    time.Time
		set        []byte
		want       string
	}{
		{"two nodes of one version", "a", at(1), old, "test.Tick position"},
		{"two nodes of one version", "b", at(2), old, "test.Tick position"},
		{"one node upgraded", "b", at(3), renamed, "test.Tick place"},
		{"other node restarted unchanged", "a", at(2), old, "test.Tick place"},
		{"both nodes upgraded", "a", at(4), renamed, "test.Tick place"},
		{"one node with another package", "b", at(5), moved, "test.v2.Tick place"},
		{"one node rolled back", "b", at(6), old, "test.Tick position"},
	} {
		if err := e.edge.Describe(step.node, "ticker", step.started, step.set); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		_, text := e.http(t, http.MethodGet, "/openapi.json", "", "Authorization", token)
		var document struct {
			Paths      map[string]any
			Components struct {
				Schemas map[string]struct{ Properties map[string]any }
			}
		}
		if err := json.Unmarshal([]byte(text), &document); err != nil {
			t.Fatal(err)
		}
		name, field, _ := strings.Cut(step.want, " ")
		if _, ok := document.Components.Schemas[name].Properties[field]; !ok ||
			document.Paths["/v1/ticks/rooms/{rooms}"] == nil {
			t.Errorf("%s: documentation of %s: %v", step.what, name, document.Components.Schemas[name])
		}
	}
}

func TestDescribe_NodeDescribesServicesOfItsOwnKindAlone(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, nil, ticks.register)
	if err := e.edge.Describe("t", "ticker", time.Time{}, ticks.set(t)); err != nil {
		t.Fatal(err)
	}
	options := ticks.file.Service[0].Method[0].Options
	for what, change := range map[string]struct {
		kind   contextkit.Kind
		change func(file *descriptorpb.FileDescriptorProto, policy *policyv1.Policy)
	}{
		"policy with another kind's upstream": {
			"thing", func(file *descriptorpb.FileDescriptorProto, _ *policyv1.Policy) {
				file.Name, file.Package = proto.String("thing.proto"), proto.String("thing")
			},
		},
		"service of another kind": {"thing", func(file *descriptorpb.FileDescriptorProto, policy *policyv1.Policy) {
			file.Name, policy.Upstream = proto.String("thing.proto"), "thing"
		}},
		"file of another kind": {"thing", func(file *descriptorpb.FileDescriptorProto, policy *policyv1.Policy) {
			file.Service[0].Name, policy.Upstream = proto.String("Thing"), "thing"
		}},
		"paths of another kind": {"thing", func(file *descriptorpb.FileDescriptorProto, policy *policyv1.Policy) {
			file.Name, file.Package, policy.Upstream = proto.String("thing.proto"), proto.String("thing"), "thing"
			file.Service[0].Method[0].InputType, file.Service[0].Method[0].OutputType = proto.String(
				".thing.WatchRequest",
			), proto.String(".thing.Tick")
		}},
		"platform service": {"ticker", func(file *descriptorpb.FileDescriptorProto, _ *policyv1.Policy) {
			file.Name, file.Package, file.Service[0].Name = proto.String(
				"mine.proto",
			), proto.String("projection.gateway.v1"), proto.String("QueryService")
			file.MessageType[0].Name, file.MessageType[1].Name = proto.String("Ask"), proto.String("Answer")
			file.Service[0].Method[0].InputType, file.Service[0].Method[0].OutputType = proto.String(
				".projection.gateway.v1.Ask",
			), proto.String(".projection.gateway.v1.Answer")
		}},
	} {
		t.Run(what, func(t *testing.T) {
			file, _ := proto.Clone(ticks.file).(*descriptorpb.FileDescriptorProto)
			changed, _ := proto.Clone(options).(*descriptorpb.MethodOptions)
			policy, _ := proto.GetExtension(changed, policyv1.E_Policy).(*policyv1.Policy)
			change.change(file, policy)
			proto.SetExtension(changed, policyv1.E_Policy, policy)
			file.Service[0].Method[0].Options = changed
			set := (&ticker{file: file}).set(t)
			if err := e.edge.Describe("mine", change.kind, time.Now(), set); err == nil {
				t.Error("the service is served")
			}
		})
	}
	token := e.token(t, "acme", "tick.read")
	if _, document := e.http(
		t, http.MethodGet, "/openapi.json", "", "Authorization", token,
	); !strings.Contains(document, "/v1/ticks/rooms/{rooms}") {
		t.Error("the first node's service is no longer served")
	}
}

func TestDescribe_StreamIsServedOverEveryProtocol(t *testing.T) {
	everyUpstream(t, aStreamOfADescriptorSetsServiceTakesEveryProtocol)
}

func aStreamOfADescriptorSetsServiceTakesEveryProtocol(t *testing.T, start starter) {
	ticks := newTicker(t)
	e := start(nil, ticks.register, ticks.set(t))
	token := e.token(t, "acme", "tick.read")
	for _, protocol := range []string{"connect+json", "connect+proto", "grpc", "grpcweb"} {
		t.Run(protocol, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ctx, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Authorization", token)
			spec := connect.Spec{
				Procedure:  "/test.Ticker/Watch",
				StreamType: connect.StreamTypeServer,
				Schema:     ticks.desc,
			}
			req := dynamicpb.NewMessage(ticks.desc.Input())
			req.Set(ticks.desc.Input().Fields().ByName("after"), protoreflect.ValueOfString("7"))
			// The client has its stream when it has received the response headers, which are sent
			// with the first message.
			go func() { ticks.next <- 0 }()
			stream, err := e.client(protocol).CallServerStream(ctx, spec, req)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			for n := range 3 {
				if n > 0 {
					ticks.next <- n
				}
				tick := dynamicpb.NewMessage(ticks.desc.Output())
				if err := stream.Receive(tick); err != nil ||
					tick.Get(ticks.desc.Output().Fields().ByName("position")).String() != fmt.Sprint(n) {
					t.Fatalf("message %d: %v, %v", n, tick, err)
				}
			}
			if got := <-ticks.ask; got != "acme  after 7" {
				t.Errorf("the node received %q", got)
			}
			cancel()
			if err := stream.Receive(dynamicpb.NewMessage(ticks.desc.Output())); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("after the client canceled: %v", err)
			}
			select {
			case <-ticks.done:
			case <-time.After(5 * time.Second):
				t.Fatal("the node's stream outlives the client's")
			}
		})
	}
}
