package backbone_test

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/nats-io/nats.go"
)

func TestCountEvents_CountsAfterASequence(t *testing.T) {
	js := natstest.Start(t)
	for n := range 10 {
		if _, err := js.Publish(t.Context(), fmt.Sprintf("events.acme.%s.a%d", []string{"order", "wallet"}[n%2], n), nil); err != nil {
			t.Fatal(err)
		}
	}
	acme := natstest.Tenant(t, "acme")
	for after, want := range map[uint64]int64{0: 5, 1: 4, 2: 4, 8: 1, 9: 0, 10: 0, 99: 0} {
		if got, err := backbone.CountEvents(t.Context(), js, backbone.EventSubject(acme, "order", "*"), after); err != nil || got != want {
			t.Errorf("after %d: %d, %v; want %d", after, got, err, want)
		}
	}
}

func TestReadDueWork_LeavesItThereUntilItIsRemoved(t *testing.T) {
	js := natstest.Start(t)
	publish := func(tenant, instance string) {
		msg := &nats.Msg{Subject: backbone.WorkSubject(natstest.Tenant(t, tenant), "transfer", instance), Header: nats.Header{}}
		if err := contextkit.InjectNATS(contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant)), msg.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := js.PublishMsg(t.Context(), msg); err != nil {
			t.Fatal(err)
		}
	}
	publish("acme", "a")
	publish("globex", "b")
	if _, err := js.Publish(t.Context(), "work.acme.transfer.c", nil); err != nil { // without a contract
		t.Fatal(err)
	}
	read := func(tenant contextkit.TenantID) (found, malformed string) {
		err := backbone.ReadDueWork(t.Context(), js, tenant, 1, 0, func(w backbone.DueWork) error {
			found += fmt.Sprint(w.Sequence, w.Tenant, w.Workflow, w.Instance, " ")
			return nil
		}, func(sequence uint64, subject string, err error) {
			malformed += fmt.Sprint(sequence, subject, err != nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		return found, malformed
	}
	for range 2 {
		if found, malformed := read(contextkit.TenantID{}); found != "1 acmetransfera 2 globextransferb " || malformed != "3work.acme.transfer.ctrue" {
			t.Errorf("%q and %q", found, malformed)
		}
	}
	for _, sequence := range []uint64{1, 1, 99} {
		if err := backbone.RemoveDueWork(t.Context(), js, sequence); err != nil {
			t.Fatal(err)
		}
	}
	if found, _ := read(natstest.Tenant(t, "acme")); found != "" {
		t.Errorf("after its removal: %q", found)
	}
}
