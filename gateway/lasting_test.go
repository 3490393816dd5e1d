package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/backbone/backbonetest"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/dynamicpb"
)

func TestAStreamEndsWithWhatAdmittedIt(t *testing.T) {
	for _, test := range []struct {
		name    string
		lasts   time.Duration // the credential
		suspend string
		code    connect.Code
		message string
		denied  string
	}{
		{"the credential expires", 2 * time.Second, "", connect.CodeUnauthenticated, "expired", "CREDENTIAL"},
		{"the tenant is suspended", time.Hour, "acme", connect.CodePermissionDenied, "tenant acme is suspended: unpaid", "SUSPENDED"},
		{"another tenant is suspended", time.Hour, "globex", 0, "", ""},
	} {
		for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb"} {
			t.Run(test.name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				ticks := newTicker(t)
				e := startWith(t, func(config *gateway.Config) { config.Auth.Leeway = time.Nanosecond }, ticks.register, ticks.set(t))
				denials, err := e.js.CreateConsumer(t.Context(), backbone.StreamAudit, jetstream.ConsumerConfig{})
				if err != nil {
					t.Fatal(err)
				}
				principal, err := auth.NewPrincipal("app", []string{"acme"}, []string{"tick.read"})
				if err != nil {
					t.Fatal(err)
				}
				token, err := e.issuer.Issue(principal, test.lasts)
				if err != nil {
					t.Fatal(err)
				}
				ctx, info := connect.NewClientContext(t.Context())
				info.RequestHeader().Set("Authorization", "Bearer "+token)
				go func() { ticks.next <- 0 }() // the headers come with it
				stream, err := e.client(protocol).CallServerStream(ctx, connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: ticks.desc}, dynamicpb.NewMessage(ticks.desc.Input()))
				if err != nil {
					t.Fatal(err)
				}
				defer stream.Close()
				receive := func() error { return stream.Receive(dynamicpb.NewMessage(ticks.desc.Output())) }
				if err := receive(); err != nil {
					t.Fatal(err)
				}
				<-ticks.ask
				if test.suspend != "" {
					e.edge.SetTenants(map[contextkit.TenantID]gateway.TenantState{backbonetest.Tenant(t, test.suspend): {Suspended: true, Reason: "unpaid"}})
				}
				if test.code == 0 {
					ticks.next <- 1
					if err := receive(); err != nil {
						t.Errorf("it ends: %v", err)
					}
					close(ticks.next)
					<-ticks.done
					return
				}
				if err := receive(); connect.CodeOf(err) != test.code || !strings.Contains(fmt.Sprint(err), test.message) {
					t.Errorf("%v, want %v with %q", err, test.code, test.message)
				}
				select {
				case <-ticks.done:
				case <-time.After(10 * time.Second):
					t.Error("the node goes on")
				}
				msg, err := denials.Next(jetstream.FetchMaxWait(10 * time.Second))
				if err != nil {
					t.Fatal(err)
				}
				var record struct{ Decision, Reason, Principal string }
				if err := json.Unmarshal(msg.Data(), &record); err != nil || record.Decision != "denied" || !strings.HasPrefix(record.Reason, test.denied) || record.Principal != "app" {
					t.Errorf("the audit record is %s, %v", msg.Data(), err)
				}
			})
		}
	}
}
