package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/nats-io/nats.go/jetstream"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
)

// keys is a file of API keys.
type keys string

// keyFile creates a file with one key, which has the rights for the ticker.
func keyFile(t *testing.T) (key string, file keys) {
	t.Helper()
	key, kept, err := auth.NewAPIKey("app", []string{"acme"}, []string{"tick.read"}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal([]auth.APIKey{kept})
	if err != nil {
		t.Fatal(err)
	}
	file = keys(filepath.Join(t.TempDir(), "keys.yaml"))
	file.write(t, string(text))
	return key, file
}

func (k keys) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(string(k), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (k keys) open(t *testing.T) *auth.APIKeyRing {
	t.Helper()
	ring, err := auth.OpenAPIKeys(t.Context(), auth.File(string(k)))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// Forms of a stream over REST: Server-Sent Events, and lines of JSON.
const events, lines = "text/event-stream", "application/x-ndjson"

// byTicket is a stream of events that is opened with a ticket.
const byTicket = "ticket"

// bearer returns the value of Authorization for a token, "" for none.
func bearer(token string) string {
	if token == "" {
		return ""
	}
	return "Bearer " + token
}

// receiving opens a stream of ticks, without a token if it is "", and returns a function that receives the next tick,
// or the stream's end.
func (e *edge) receiving(t *testing.T, ticks *ticker, protocol, token string) (receive func() error) {
	t.Helper()
	if protocol == byTicket {
		opens, failed := (&ticketEdge{e, ticks}).createTicket(t, bearer(token), hallPath)
		if opens == "" {
			t.Fatal(failed)
		}
		source := (&ticketEdge{e, ticks}).openEvents(t, opens, "")
		return func() error { return nextOf(source.lines) }
	}
	if protocol == events || protocol == lines {
		_, text := e.watch(t, "Authorization", bearer(token), "Accept", protocol)
		return func() error { return nextOf(text) }
	}
	ctx, info := connect.NewClientContext(t.Context())
	if token != "" {
		info.RequestHeader().Set("Authorization", bearer(token))
	}
	stream, err := e.client(protocol).CallServerStream(
		ctx, connect.Spec{Procedure: "/test.Ticker/Watch", StreamType: connect.StreamTypeServer, Schema: ticks.desc},
		dynamicpb.NewMessage(ticks.desc.Input()),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Close() })
	return func() error { return stream.Receive(dynamicpb.NewMessage(ticks.desc.Output())) }
}

// openAmong opens a stream of ticks beside others, with which it shares the numbers: each receives some of them. It
// returns a function that receives the next one, or the stream's end.
func (e *edge) openAmong(t *testing.T, ticks *ticker, protocol, token string) (receive func() error) {
	t.Helper()
	opened, sent := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case ticks.next <- 0: // the headers come with it
			case <-opened:
				return
			}
		}
	}()
	receive = e.receiving(t, ticks, protocol, token)
	if err := receive(); err != nil {
		t.Error(err)
	}
	close(opened)
	<-sent
	<-ticks.ask
	return receive
}

// nextOf reads a REST stream up to its next message, or returns the error that ends it.
func nextOf(text *bufio.Reader) error {
	for {
		line, err := text.ReadString('\n')
		if err != nil {
			return err
		}
		data, _ := strings.CutPrefix(line, "data: ")
		if !strings.HasPrefix(data, "{") {
			continue
		}
		var message struct {
			Error *struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(data), &message); err != nil || message.Error == nil {
			return err
		}
		var code connect.Code
		if err := code.UnmarshalText([]byte(message.Error.Code)); err != nil {
			return err
		}
		return connect.NewError(code, message.Error.Message)
	}
}

const signingKeyRevoked = "the key that signed the token is revoked"

// signingKeys is an issuer whose key can be revoked.
type signingKeys struct {
	issuer *auth.Issuer
	ring   *auth.KeyRing
	set    atomic.Pointer[[]byte]
}

func newSigningKeys(t *testing.T) *signingKeys {
	t.Helper()
	s := &signingKeys{}
	s.issuer = s.publish(t)
	ring, err := auth.OpenKeyRing(t.Context(), func(context.Context) ([]byte, error) { return *s.set.Load(), nil })
	if err != nil {
		t.Fatal(err)
	}
	s.ring = ring
	return s
}

// publish replaces the key by that of a new issuer.
func (s *signingKeys) publish(t *testing.T) *auth.Issuer {
	t.Helper()
	issuer, err := auth.OpenIssuer(filepath.Join(t.TempDir(), "key.json"), "test", "headgate")
	if err != nil {
		t.Fatal(err)
	}
	set, err := issuer.PublicKeys()
	if err != nil {
		t.Fatal(err)
	}
	s.set.Store(&set)
	return issuer
}

// rotate revokes the key.
func (s *signingKeys) rotate(t *testing.T) {
	t.Helper()
	s.publish(t)
	if err := s.ring.Refresh(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLiveStreams_EndWithCredentialOrTenant(t *testing.T) {
	for _, test := range []struct {
		name    string
		lasts   time.Duration // the credential
		suspend string
		code    connect.Code
		message string
		denied  string
	}{
		{"the credential expires", 2 * time.Second, "", connect.CodeUnauthenticated, "expired", "EXPIRED_CREDENTIAL"},
		{
			"the tenant is suspended", time.Hour, "acme", connect.CodePermissionDenied,
			"tenant acme is suspended: unpaid", "TENANT_SUSPENDED",
		},
		{"another tenant is suspended", time.Hour, "globex", 0, "", ""},
		{"the API key is revoked", 0, "", connect.CodeUnauthenticated, "revoked", "BAD_CREDENTIAL"},
		{signingKeyRevoked, time.Hour, "", connect.CodeUnauthenticated, "revoked", "BAD_CREDENTIAL"},
	} {
		for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb", events, lines, byTicket} {
			t.Run(test.name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				ticks := newTicker(t)
				apiKey, keys := keyFile(t)
				signing := newSigningKeys(t)
				e := startWith(t, func(config *gateway.Config) {
					config.Auth.Leeway, config.Auth.APIKeys = time.Nanosecond, keys.open(t)
					config.TicketSecret = ticketSecret
					if test.name == signingKeyRevoked {
						config.Auth.Issuers = []auth.IssuerConfig{
							{Issuer: "test", Audiences: []string{"headgate"}, Keys: signing.ring},
						}
					}
				}, ticks.register, ticks.set(t))
				denials, err := e.js.CreateConsumer(t.Context(), streams.Audit,
					jetstream.ConsumerConfig{InactiveThreshold: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				principal, err := auth.NewPrincipal("app", []string{"acme"}, []string{"tick.read"})
				if err != nil {
					t.Fatal(err)
				}
				token, caller := apiKey, "key:app"
				if test.lasts > 0 {
					caller = "app"
					issuer := e.issuer
					if test.name == signingKeyRevoked {
						issuer = signing.issuer
					}
					if token, err = issuer.Issue(principal, test.lasts); err != nil {
						t.Fatal(err)
					}
				}
				go func() { ticks.next <- 0 }() // the headers come with it
				receive := e.receiving(t, ticks, protocol, token)
				if err := receive(); err != nil {
					t.Fatal(err)
				}
				<-ticks.ask
				if test.lasts == 0 {
					keys.write(t, "")
				}
				if test.name == signingKeyRevoked {
					signing.rotate(t)
				}
				if test.suspend != "" {
					e.edge.SetTenants(
						map[contextkit.TenantID]gateway.TenantState{
							natstest.Tenant(t, test.suspend): {Suspended: true, Reason: "unpaid"},
						},
					)
				}
				if test.code == 0 {
					ticks.next <- 1
					if err := receive(); err != nil {
						t.Errorf("stream ended: %v", err)
					}
					close(ticks.next)
					<-ticks.done
					return
				}
				if err := receive(); connect.CodeOf(err) != test.code ||
					!strings.Contains(fmt.Sprint(err), test.message) {
					t.Errorf("%v, want %v with %q", err, test.code, test.message)
				}
				select {
				case <-ticks.done:
				case <-time.After(10 * time.Second):
					t.Error("the node's stream continues")
				}
				msg, err := denials.Next(jetstream.FetchMaxWait(10 * time.Second))
				if err != nil {
					t.Fatal(err)
				}
				var record struct{ Decision, Reason, Principal string }
				if err := json.Unmarshal(msg.Data(), &record); err != nil || record.Decision != "denied" ||
					!strings.HasPrefix(record.Reason, test.denied) || record.Principal != caller {
					t.Errorf("audit record %s, %v", msg.Data(), err)
				}
				reason := "credential"
				if test.denied == "TENANT_SUSPENDED" {
					reason = "suspended"
				}
				want := fmt.Sprintf(`headgate_streams_ended_total{process="gateway",reason=%q} 1`, reason)
				eventually(t, "the end of the stream is counted",
					func() bool { return slices.Contains(e.series(t, "headgate_streams_ended_total"), want) })
			})
		}
	}
}
