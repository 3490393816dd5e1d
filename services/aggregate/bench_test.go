package aggregate_test

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/aggregate"
)

// BenchmarkSubmit decides and appends one command at a time, with NATS in the same process and without a transport.
func BenchmarkSubmit(b *testing.B) {
	models, err := model.Open(b.Context(), model.Wallet)
	if err != nil {
		b.Fatal(err)
	}
	tenants, err := rpc.ParseTenants([]string{"acme"})
	if err != nil {
		b.Fatal(err)
	}
	service, err := aggregate.New(b.Context(), aggregate.Config{}, natstest.Start(b), models, tenants, nil)
	if err != nil {
		b.Fatal(err)
	}
	ctx := contextkit.TenantContext(b.Context(), tenants.All()[0])
	if _, err := service.Submit(ctx, command("w", "open", "", map[string]any{"owner": "ada"})); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if _, err := service.Submit(ctx, deposit("w", fmt.Sprint("key-", n), 1)); err != nil {
			b.Fatal(err)
		}
	}
}
