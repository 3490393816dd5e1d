package natstest

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// Swallow has a subject's messages taken, and never acknowledged, in the place of a stream.
func Swallow(t *testing.T, js jetstream.JetStream, stream, subject string) {
	t.Helper()
	if err := js.DeleteStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Conn().SubscribeSync(subject); err != nil {
		t.Fatal(err)
	}
}
