package node

import (
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/streams"
)

const testTraceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// Each role takes the transport contract in and returns it, over every protocol of its port, in success and failure.
func TestTransport_EachRoleReturnsTheContractOverEveryProtocol(t *testing.T) {
	d := startContract(t)
	d.note(t, "acme", 1)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	h2c := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer h2c.CloseIdleConnections()
	for role, c := range map[string]struct {
		url       string
		method    protoreflect.FullName
		well, ill proto.Message
	}{
		"aggregate": {d.aggregate.server.URL(), "aggregate.gateway.v1.CommandService.GetAggregate",
			&aggregatev1.GetAggregateRequest{AggregateType: "note", AggregateId: "acme-1"},
			&aggregatev1.GetAggregateRequest{AggregateType: "note", AggregateId: "none"}},
		"projection": {d.projection.server.URL(), "projection.gateway.v1.QueryService.Query",
			&projectionv1.QueryRequest{View: "notes"}, &projectionv1.QueryRequest{View: "none"}},
		"runner": {d.runner.server.URL(), "runner.admin.v1.RunnerAdmin.ListWorkflows",
			&adminv1.ListWorkflowsRequest{}, &adminv1.ListWorkflowsRequest{PageSize: -1}},
		"control": {d.control.server.URL(), "control.v1.PlacementService.ListPlacements",
			&controlv1.ListPlacementsRequest{}, nil},
	} {
		m := method(t, c.method)
		spec := connect.Spec{
			Procedure:        procedureOf(m),
			StreamType:       connect.StreamTypeUnary,
			Schema:           m,
			IdempotencyLevel: connect.IdempotencyNoSideEffects,
		}
		for protocol, options := range map[string][]connecthttp.Option{
			"connect+json": {connecthttp.WithProtoJSON()}, "connect+proto": {},
			"connect+get": {connecthttp.WithHTTPGet()},
			"grpc":        {connecthttp.WithGRPC()}, "grpcweb": {connecthttp.WithGRPCWeb()},
		} {
			client := connect.NewClient(connecthttp.NewTransport(h2c, c.url, options...))
			for _, req := range []proto.Message{c.well, c.ill} {
				if req == nil {
					continue
				}
				answer, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
				if err != nil {
					t.Fatal(err)
				}
				ctx, info := connect.NewClientContext(t.Context())
				for name, value := range map[string]string{
					contextkit.HeaderCorrelationID: "corr-1", contextkit.HeaderRequestID: "req-1",
					contextkit.HeaderTraceparent: testTraceparent,
				} {
					info.RequestHeader().Set(name, value)
				}
				if role != "control" {
					info.RequestHeader().Set(contextkit.HeaderTenantID, "acme")
				}
				err = client.CallUnary(ctx, spec, req, answer.New().Interface())
				if (err != nil) != (req == c.ill) {
					t.Errorf("%s over %s: %v: %v", role, protocol, req, err)
				}
				for name, want := range map[string]string{
					contextkit.HeaderCorrelationID: "corr-1", contextkit.HeaderRequestID: "req-1",
					contextkit.HeaderTraceID: testTraceparent[3:35],
				} {
					values := append(info.ResponseHeader().Values(name), info.ResponseTrailer().Values(name)...)
					if len(values) != 1 || values[0] != want {
						t.Errorf("%s over %s returns %s %q, want %q once", role, protocol, name, values, want)
					}
				}
				for _, name := range []string{
					contextkit.HeaderTenantID, contextkit.HeaderTraceparent, contextkit.HeaderPrincipal,
				} {
					if values := info.ResponseHeader().Values(name); len(values) > 0 {
						t.Errorf("%s over %s returns %s %q, want none", role, protocol, name, values)
					}
				}
			}
		}
	}
}

// What control decides is stored with the contract of the call that has decided it.
func TestTransport_ControlStoresTheContractOfItsCall(t *testing.T) {
	d := startContract(t)
	eventually(t, "control lists the aggregate node", func() bool {
		res := d.mustCall(t, "gateway", method(t, "control.v1.FleetService.GetFleet"), &controlv1.GetFleetRequest{},
			d.token(t, "*")...)
		return strings.Contains(res.(*controlv1.GetFleetResponse).String(), "aggregate-1")
	})
	for _, c := range []struct {
		bucket string
		method protoreflect.FullName
		req    proto.Message
	}{
		{
			streams.BucketPlacement, "control.v1.PlacementService.AssignPlacement",
			&controlv1.AssignPlacementRequest{TenantId: "acme", Kind: "aggregate", Node: "aggregate-1"},
		},
		{
			streams.BucketTenants, "control.v1.TenantService.SuspendTenant",
			&controlv1.SuspendTenantRequest{TenantId: "acme", Reason: "r"},
		},
	} {
		subjects := make(chan *nats.Msg, 64)
		watched, err := d.js.Conn().ChanSubscribe("$KV."+c.bucket+".>", subjects)
		if err != nil {
			t.Fatal(err)
		}
		d.mustCall(
			t, "gateway", method(t, c.method), c.req,
			append([]string{"x-correlation-id", "corr-1", "x-request-id", "req-1", "traceparent", testTraceparent},
				d.token(t, "*")...)...,
		)
		var msg *nats.Msg
		for msg == nil {
			select {
			case next := <-subjects:
				if strings.Contains(next.Subject, "acme") {
					msg = next
				}
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			}
		}
		if err := watched.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{
			contextkit.NATSCorrelationID: "corr-1", contextkit.NATSRequestID: "req-1",
			contextkit.NATSTraceID: testTraceparent[3:35],
		} {
			if values := msg.Header.Values(name); len(values) != 1 || values[0] != want {
				t.Errorf("%s: %s has %s %q, want %q once", c.method, msg.Subject, name, values, want)
			}
		}
		if got := msg.Header.Get(contextkit.NATSTraceparent); !strings.HasPrefix(got, testTraceparent[:36]) ||
			got == testTraceparent {
			t.Errorf("%s: traceparent %q, want the call's trace under another span", c.method, got)
		}
	}
}
