package runner

import (
	"context"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/reads"
	"github.com/headgate/headgate/internal/rpc/response"
)

// Each list reads thousands of records: those of one tenant, or of all, occupy their own share of the node.
func TestLists_ReadsOfATenantAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		acme, err := contextkit.ParseTenantID("acme")
		if err != nil {
			t.Fatal(err)
		}
		s := &Service{
			tenants: rpc.NewTenants(acme),
			answers: response.NewLimiter(response.Config{}),
			reads:   reads.NewLimiter(recordReads),
		}
		for _, of := range []contextkit.TenantID{acme, {}} {
			for range 2 {
				leave, err := s.enterRead(t.Context(), of)
				if err != nil {
					t.Fatal(err)
				}
				defer leave()
			}
		}
		ctx := contextkit.TenantContext(t.Context(), acme)
		for name, list := range map[string]func(context.Context) error{
			"ListWorkflows": func(ctx context.Context) error {
				_, err := s.ListWorkflows(ctx, &adminv1.ListWorkflowsRequest{})
				return err
			},
			"ListAllWorkflows": func(ctx context.Context) error {
				_, err := s.ListAllWorkflows(ctx, &adminv1.ListAllWorkflowsRequest{})
				return err
			},
			"ListDeadLetters": func(ctx context.Context) error {
				_, err := s.ListDeadLetters(ctx, &adminv1.ListDeadLettersRequest{})
				return err
			},
		} {
			if err := list(ctx); connect.CodeOf(err) != connect.CodeResourceExhausted {
				t.Errorf("%s beside two others: %v", name, err)
			}
		}
	})
}
