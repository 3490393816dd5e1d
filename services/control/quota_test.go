package control_test

import (
	"context"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/usage"
)

func TestSetStorageQuota_IsReturnedWithQuotaAndUse(t *testing.T) {
	w := newWorld(t)
	c := w.control(t, "c1", "")
	ctx := platform(t)
	if _, err := c.tenants.CreateTenant(
		ctx, &controlv1.CreateTenantRequest{TenantId: "initech", StorageQuota: &controlv1.StorageQuota{Events: 10}},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := c.tenants.SetQuota(
		ctx, &controlv1.SetQuotaRequest{TenantId: "initech", Quota: &controlv1.Quota{Rate: 5}},
	); err != nil {
		t.Fatal(err)
	}
	res, err := c.tenants.SetStorageQuota(ctx,
		&controlv1.SetStorageQuotaRequest{TenantId: "initech", Quota: &controlv1.StorageQuota{Events: 20, Bytes: 5000}})
	if err != nil {
		t.Fatal(err)
	}
	if got := res.GetTenant(); got.GetQuota().GetRate() != 5 || got.GetStorageQuota().GetEvents() != 20 ||
		got.GetStorageQuota().GetBytes() != 5000 {
		t.Errorf("tenant %v", got)
	}
	if _, err := c.tenants.SetStorageQuota(
		ctx, &controlv1.SetStorageQuotaRequest{TenantId: "absent"},
	); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("unknown tenant: %v", err)
	}

	// Both quotas are compared and set: a concurrent change by another operator is not overwritten.
	read, stale := res.GetTenant().GetRevision(), res.GetTenant().GetRevision()-1
	for _, set := range []func(expected *int64) (*controlv1.Tenant, error){
		func(expected *int64) (*controlv1.Tenant, error) {
			res, err := c.tenants.SetQuota(
				ctx,
				&controlv1.SetQuotaRequest{
					TenantId:         "initech",
					Quota:            &controlv1.Quota{Rate: 6},
					ExpectedRevision: expected,
				},
			)
			return res.GetTenant(), err
		},
		func(expected *int64) (*controlv1.Tenant, error) {
			res, err := c.tenants.SetStorageQuota(
				ctx,
				&controlv1.SetStorageQuotaRequest{
					TenantId:         "initech",
					Quota:            &controlv1.StorageQuota{Events: 20},
					ExpectedRevision: expected,
				},
			)
			return res.GetTenant(), err
		},
	} {
		if _, err := set(&stale); connect.CodeOf(err) != connect.CodeAborted {
			t.Errorf("revision %d set over revision %d: %v", stale, read, err)
		}
		tenant, err := set(&read)
		if err != nil || tenant.GetRevision() <= read {
			t.Fatalf("revision %d: %v, %v", read, tenant, err)
		}
		stale, read = read, tenant.GetRevision()
	}

	journal, err := journal.Open(t.Context(), w.js)
	if err != nil {
		t.Fatal(err)
	}
	meter, err := usage.Open(t.Context(), w.js, journal, usage.Config{Flush: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	meter.Add(natstest.Tenant(t, "initech"), usage.Counts{
		Events:     3,
		Bytes:      300,
		Aggregates: 1,
		Keys:       2,
	})
	ended, end := context.WithCancel(t.Context())
	end()
	if err := meter.Run(ended); err != nil { // publishes its counts
		t.Fatal(err)
	}
	list, err := c.tenants.ListTenants(ctx, &controlv1.ListTenantsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tenant := range list.GetTenants() {
		if tenant.GetTenantId() != "initech" {
			continue
		}
		if use := tenant.GetStorageUse(); use.GetEvents() != 3 || use.GetBytes() != 300 || use.GetAggregates() != 1 ||
			use.GetKeys() != 2 || tenant.GetStorageQuota().GetEvents() != 20 {
			t.Errorf("tenant %v", tenant)
		}
		return
	}
	t.Errorf("tenant missing in the list: %v", list)
}
