package control

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/usage"
)

// maxTries bounds the attempts at a change that conflicts with concurrent changes.
const maxTries = 5

type tenantService struct {
	controlv1connect.UnimplementedTenantServiceHandler

	*Service
}

// served returns the nodes that announce to serve each tenant.
func (s *Service) served() map[string][]string {
	out := map[string][]string{}
	for _, node := range s.announced() {
		for _, tenant := range node.Tenants {
			out[tenant] = append(out[tenant], node.ID)
		}
	}
	return out
}

// ListTenants implements TenantService.
func (s tenantService) ListTenants(
	ctx context.Context, _ *controlv1.ListTenantsRequest,
) (*controlv1.ListTenantsResponse, error) {
	known, err := s.tenants.All(ctx)
	if err != nil {
		return nil, asConnectError(err)
	}
	served := s.served()
	names := maps.Clone(served)
	for name := range known {
		names[name] = nil
	}
	stored, err := usage.Read(ctx, s.js)
	if err != nil {
		return nil, asConnectError(err)
	}
	res := &controlv1.ListTenantsResponse{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		kept, created := known[name]
		out := tenantMessage(name, kept, served[name], !created)
		if use, counted := stored[name]; counted {
			out.StorageUse = &controlv1.StorageUse{
				Events:     use.Events,
				Bytes:      use.Bytes,
				Aggregates: use.Aggregates,
				Keys:       use.Keys,
			}
		}
		res.Tenants = append(res.Tenants, out)
	}
	return res, nil
}

func tenantMessage(name string, stored kv.Entry[fleet.Tenant], nodes []string, configured bool) *controlv1.Tenant {
	tenant := stored.Value
	out := &controlv1.Tenant{
		TenantId:   name,
		Suspended:  tenant.Suspended,
		Reason:     tenant.Reason,
		Nodes:      nodes,
		Configured: configured,
		Revision:   int64(stored.Revision),
	}
	if q := tenant.Quota; q != nil {
		out.Quota = &controlv1.Quota{
			Rate:       q.Rate,
			Burst:      int32(q.Burst),
			Concurrent: int32(q.Concurrent),
			Streams:    int32(q.Streams),
		}
	}
	if q := tenant.Storage; q != nil {
		out.StorageQuota = &controlv1.StorageQuota{
			Events:     q.Events,
			Bytes:      q.Bytes,
			Aggregates: q.Aggregates,
			Keys:       q.Keys,
		}
	}
	return out
}

func storageQuota(q *controlv1.StorageQuota) *fleet.StorageQuota {
	if q == nil {
		return nil
	}
	return &fleet.StorageQuota{
		Events:     q.GetEvents(),
		Bytes:      q.GetBytes(),
		Aggregates: q.GetAggregates(),
		Keys:       q.GetKeys(),
	}
}

func quota(q *controlv1.Quota) *fleet.Quota {
	if q == nil {
		return nil
	}
	return &fleet.Quota{
		Rate:       q.GetRate(),
		Burst:      int(q.GetBurst()),
		Concurrent: int(q.GetConcurrent()),
		Streams:    int(q.GetStreams()),
	}
}

// CreateTenant implements TenantService.
func (s tenantService) CreateTenant(
	ctx context.Context, req *controlv1.CreateTenantRequest,
) (*controlv1.CreateTenantResponse, error) {
	name := req.GetTenantId()
	taken := connect.Errorf(connect.CodeAlreadyExists, "tenant %s already exists", name)
	if len(s.served()[name]) > 0 {
		return nil, taken
	}
	tenant := fleet.Tenant{Quota: quota(req.GetQuota()), Storage: storageQuota(req.GetStorageQuota())}
	revision, err := s.tenants.Put(ctx, name, tenant, 0)
	if err != nil {
		if errors.Is(err, kv.ErrChanged) {
			return nil, taken
		}
		return nil, asConnectError(err)
	}
	stateChanges(ctx, tenantChanges(fleet.Tenant{}, tenant)...)
	return &controlv1.CreateTenantResponse{
		Tenant: tenantMessage(name, kv.Entry[fleet.Tenant]{Value: tenant, Revision: revision}, nil, false),
	}, nil
}

// SuspendTenant implements TenantService.
func (s tenantService) SuspendTenant(
	ctx context.Context, req *controlv1.SuspendTenantRequest,
) (*controlv1.SuspendTenantResponse, error) {
	tenant, err := s.change(ctx, req.GetTenantId(), nil,
		func(t *fleet.Tenant) { t.Suspended, t.Reason = true, req.GetReason() })
	return &controlv1.SuspendTenantResponse{Tenant: tenant}, err
}

// ResumeTenant implements TenantService.
func (s tenantService) ResumeTenant(
	ctx context.Context, req *controlv1.ResumeTenantRequest,
) (*controlv1.ResumeTenantResponse, error) {
	tenant, err := s.change(ctx, req.GetTenantId(), nil, func(t *fleet.Tenant) { t.Suspended, t.Reason = false, "" })
	return &controlv1.ResumeTenantResponse{Tenant: tenant}, err
}

// SetQuota implements TenantService.
func (s tenantService) SetQuota(
	ctx context.Context, req *controlv1.SetQuotaRequest,
) (*controlv1.SetQuotaResponse, error) {
	tenant, err := s.change(ctx, req.GetTenantId(), req.ExpectedRevision,
		func(t *fleet.Tenant) { t.Quota = quota(req.GetQuota()) })
	return &controlv1.SetQuotaResponse{Tenant: tenant}, err
}

// SetStorageQuota implements TenantService.
func (s tenantService) SetStorageQuota(
	ctx context.Context, req *controlv1.SetStorageQuotaRequest,
) (*controlv1.SetStorageQuotaResponse, error) {
	tenant, err := s.change(ctx, req.GetTenantId(), req.ExpectedRevision,
		func(t *fleet.Tenant) { t.Storage = storageQuota(req.GetQuota()) })
	return &controlv1.SetStorageQuotaResponse{Tenant: tenant}, err
}

// change changes the stored tenant. With an expected KV revision it returns ABORTED if the tenant has another one.
func (s tenantService) change(
	ctx context.Context, name string, expected *int64, f func(*fleet.Tenant),
) (*controlv1.Tenant, error) {
	if _, err := contextkit.ParseTenantID(name); err != nil {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
	}
	for range maxTries {
		kept, err := s.tenants.Get(ctx, name)
		nodes := s.served()[name]
		if errors.Is(err, kv.ErrNotFound) && len(nodes) == 0 {
			return nil, connect.Errorf(connect.CodeNotFound, "the tenant %q does not exist", name)
		}
		if err != nil && !errors.Is(err, kv.ErrNotFound) {
			return nil, asConnectError(err)
		}
		if current := int64(kept.Revision); expected != nil &&
			*expected != current {
			return nil, rpc.WithDetails(
				connect.Errorf(
					connect.CodeAborted, "tenant %s has changed since revision %d: read it again, it has revision %d",
					name, *expected, current,
				),
				rpc.Reason(rpc.ReasonVersionMismatch, "current_revision", strconv.FormatInt(current, 10)),
			)
		}
		before := kept.Value
		f(&kept.Value)
		revision, err := s.tenants.Put(ctx, name, kept.Value, kept.Revision)
		if errors.Is(err, kv.ErrChanged) {
			continue
		}
		if err == nil {
			stateChanges(ctx, tenantChanges(before, kept.Value)...)
		}
		kept.Revision = revision
		return tenantMessage(name, kept, nodes, false), asConnectError(err)
	}
	return nil, asConnectError(kv.ErrChanged)
}
