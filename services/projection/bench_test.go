package projection_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// BenchmarkFollow measures applying one event to new views.
func BenchmarkFollow(b *testing.B) { benchmarkFollow(b, 100) }

// BenchmarkFollow_Beginnings measures applying the first event of an aggregate, which the index of aggregates has too.
func BenchmarkFollow_Beginnings(b *testing.B) { benchmarkFollow(b, 1) }

// benchmarkFollow measures applying events of which each aggregate has a number.
func benchmarkFollow(b *testing.B, each int) {
	js := natstest.Start(b)
	eventLog, err := journal.Open(b.Context(), js)
	if err != nil {
		b.Fatal(err)
	}
	acme := natstest.Tenant(b, "acme")
	ctx := contextkit.TenantContext(b.Context(), acme)
	for n := 0; n < b.N; n += each {
		events := make([]journal.Event, each)
		for i := range events {
			events[i] = journal.Event{
				ID:            contextkit.NewID(),
				Type:          "opened",
				AggregateType: "wallet",
				AggregateID:   fmt.Sprintf("w%d", n),
				Version:       int64(i + 1),
				Time:          time.Unix(1_800_000_000, 0),
				Data:          []byte(`{"owner":"ada"}`),
			}
		}
		if err := eventLog.Append(ctx, acme, 0, events); err != nil {
			b.Fatal(err)
		}
	}
	models, err := model.Open(ctx, model.Wallet)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	service, err := projection.New(ctx, projection.Config{}, js, models, rpc.NewTenants(acme), sqlite.In(b.TempDir()),
		nil, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	running, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- service.Run(running) }()
	for service.Ready(ctx, acme) != nil {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	cancel()
	if err := errors.Join(<-done, service.Close()); err != nil {
		b.Error(err)
	}
}
