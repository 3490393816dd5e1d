package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
	"github.com/headgate/headgate/services/projection/store"
)

// Views in PostgreSQL that have followed the journal beyond its end prove that the end is missing.
func TestVerifyJournal_ComparesViewsInPostgreSQL(t *testing.T) {
	pg, err := postgrestest.Start()
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("HEADGATE_POSTGRES") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	bus := natstest.Server(t, &server.Options{})
	js := natstest.Connect(t, bus)
	eventLog, err := journal.Open(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}
	acme := natstest.Tenant(t, "acme")
	for n := range 3 {
		if err := eventLog.Append(contextkit.TenantContext(t.Context(), acme), acme, 0, []journal.Event{{
			ID: contextkit.NewID(), Type: "opened", AggregateType: "wallet", AggregateID: fmt.Sprintf("w%d", n),
			Version: 1, Time: time.Now(), Data: []byte(`{"owner":"ada"}`),
		}}); err != nil {
			t.Fatal(err)
		}
	}
	// A tenant of which the journal has no events any more.
	tenants, err := kv.Open[fleet.Tenant](t.Context(), js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tenants.Put(contextkit.PlatformContext(t.Context()), "globex", fleet.Tenant{}, 0); err != nil {
		t.Fatal(err)
	}
	models, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	url := pg.Database(t)
	database, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer database.Close()
	follow := func(tenant string, epoch int64, sequence uint64) {
		t.Helper()
		views, err := database.Views(t.Context(), natstest.Tenant(t, tenant), models.Current().Views(),
			fmt.Sprintf("m@%d", epoch))
		if err != nil {
			t.Fatal(err)
		}
		defer views.Close()
		if err := views.Apply(t.Context(), func(batch *store.Batch, _ store.State) error {
			batch.Advance(store.Checkpoint{Sequence: sequence, EventID: "e"})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(t.TempDir(), "headgate.yaml")
	if err := os.WriteFile(
		config, fmt.Appendf(nil, "nats: {url: %q}\nprojection: {postgres: %q}\n", bus.ClientURL(), url), 0o600,
	); err != nil {
		t.Fatal(err)
	}
	verify := func() (string, error) {
		var out bytes.Buffer
		err := VerifyJournal(t.Context(), Store{Config: config}, &out)
		return out.String(), err
	}
	follow("acme", eventLog.Epoch(), 3)
	follow("acme", eventLog.Epoch()-1, 100) // of another journal
	if output, err := verify(); err != nil || strings.Contains(output, "views") {
		t.Errorf("intact journal: %s, %v", output, err)
	}
	follow("globex", eventLog.Epoch(), 7)
	output, err := verify()
	if want := "the views of tenant globex in the schema views_"; !errors.Is(err, ErrDamaged) ||
		!strings.Contains(output, want) || !strings.Contains(output, "to sequence 7, and it ends at 3") {
		t.Errorf("views beyond the end: %s, %v; want %q", output, err, want)
	}
}
