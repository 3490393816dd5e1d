package gateway_test

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/auth"
)

// The revocation of a subject's tokens ends the streams of all protocols that they admitted, also by tickets, and
// no others.
func TestRevocations_EndStreamsOfAllProtocols(t *testing.T) {
	ticks := newTicker(t)
	e := startWith(t, func(config *gateway.Config) { config.TicketSecret = ticketSecret }, ticks.register, ticks.set(t))
	tokenOf := func(subject string) string {
		principal, err := auth.NewPrincipal(subject, []string{"acme"}, []string{"tick.read"})
		if err != nil {
			t.Fatal(err)
		}
		token, err := e.issuer.Issue(principal, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	revoked := tokenOf("app")
	streams := map[string]func() error{}
	for _, protocol := range []string{"connect+json", "grpc", "native grpc", "grpcweb", events, lines, byTicket} {
		streams[protocol] = e.openAmong(t, ticks, protocol, revoked)
	}
	e.openAmong(t, ticks, "grpc", tokenOf("other"))
	set, err := auth.NewRevocations([]auth.Revocation{{Subject: "app", IssuedBefore: time.Now().Add(time.Second)}})
	if err != nil {
		t.Fatal(err)
	}
	e.edge.SetRevocations(set)
	for protocol, receive := range streams {
		var err error
		for err == nil {
			err = receive()
		}
		if connect.CodeOf(err) != connect.CodeUnauthenticated || !strings.Contains(err.Error(), "revoked") {
			t.Errorf("%s: %v", protocol, err)
		}
		<-ticks.done
	}
	select {
	case ticks.next <- 1: // the other subject's stream takes it
	case <-ticks.done:
		t.Error("the stream of another subject ended")
	case <-t.Context().Done():
	}
	close(ticks.next)
	<-ticks.done
	if _, text := e.http(
		t, "GET", hallPath, "", "authorization", "Bearer "+revoked,
	); !strings.Contains(text, "revoked") {
		t.Errorf("call with the revoked token: %s", text)
	}
	if _, text := e.http(t, "GET", "/ready", ""); strings.Contains(text, "revocations") {
		t.Errorf("%s", text)
	}
	e.edge.RevocationsAway()
	if _, text := e.http(t, "GET", "/ready", ""); !strings.Contains(text, "revocations of platform") {
		t.Errorf("%s", text)
	}
}
