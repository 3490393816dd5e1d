package setup_test

import (
	"encoding/json"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/setup"
)

func TestRetain_MessagesCarryThePlatformsContract(t *testing.T) {
	js := natstest.Start(t)
	if err := setup.BeginRestore(t.Context(), js, 1); err != nil {
		t.Fatal(err)
	}
	if err := setup.Retain(t.Context(), js, []json.RawMessage{[]byte(`{"id":"a"}`)}); err != nil {
		t.Fatal(err)
	}
	records, complete, err := setup.Retained(t.Context(), js)
	if err != nil || !complete || len(records) != 1 || string(records[0]) != `{"id":"a"}` {
		t.Errorf("retained: %s, complete: %v, %v", records, complete, err)
	}
	stream, err := js.Stream(t.Context(), "RESTORING")
	if err != nil {
		t.Fatal(err)
	}
	for sequence := stream.CachedInfo().State.FirstSeq; sequence <= stream.CachedInfo().State.LastSeq; sequence++ {
		var msg *jetstream.RawStreamMsg
		if msg, err = stream.GetMsg(t.Context(), sequence); err != nil {
			t.Fatal(err)
		}
		rc, err := contextkit.ExtractNATS(msg.Header)
		if err != nil || !rc.Platform || rc.TraceID == (contextkit.TraceID{}) {
			t.Errorf("message %d: %+v, %v", sequence, rc, err)
		}
	}
}
