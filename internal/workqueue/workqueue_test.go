package workqueue_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/workqueue"
)

func TestReadDueWork_LeavesItThereUntilItIsRemoved(t *testing.T) {
	js := natstest.Start(t)
	publish := func(tenant, instance string) {
		msg := &nats.Msg{
			Subject: streams.WorkSubject(natstest.Tenant(t, tenant), "transfer", instance),
			Header:  nats.Header{},
		}
		if err := contextkit.InjectNATS(
			contextkit.TenantContext(t.Context(), natstest.Tenant(t, tenant)), msg.Header,
		); err != nil {
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
		err := workqueue.Read(t.Context(), js, tenant, 1, 0, func(w workqueue.Due) error {
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
		if found, malformed := read(contextkit.TenantID{}); found != "1 acmetransfera 2 globextransferb " ||
			malformed != "3work.acme.transfer.ctrue" {
			t.Errorf("%q and %q", found, malformed)
		}
	}
	for _, sequence := range []uint64{1, 1, 99} {
		if err := workqueue.Remove(t.Context(), js, sequence); err != nil {
			t.Fatal(err)
		}
	}
	if found, _ := read(natstest.Tenant(t, "acme")); found != "" {
		t.Errorf("after its removal: %q", found)
	}
}
