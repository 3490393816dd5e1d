package natstest

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
)

// SameContract checks that a stored message has ctx's ids.
func SameContract(ctx context.Context, t *testing.T, js jetstream.JetStream, stream string, sequence uint64) {
	t.Helper()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetMsg(ctx, sequence)
	if err != nil {
		t.Fatal(err)
	}
	got, err := contextkit.ExtractNATS(msg.Header)
	want, _ := contextkit.FromContext(ctx)
	if err != nil || got.CorrelationID != want.CorrelationID || got.TraceID != want.TraceID ||
		got.TenantID != want.TenantID {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
}
