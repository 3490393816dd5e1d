package aggregate_test

import (
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
)

// TestForeignMessages_UnfoldableEventIsNamed publishes events that can be read but whose data does not fit the
// model's rules: every node returns an error that names the event and the reason.
func TestForeignMessages_UnfoldableEventIsNamed(t *testing.T) {
	js := natstest.Start(t)
	client, _ := nodeOf(t, js, model.Wallet)
	other, _ := nodeOf(t, js, model.Wallet)
	for name, data := range map[string]string{
		"text": `{"amount":"many"}`, "missing": `{}`, "null": `{"amount":null}`, "large": `{"amount":1e400}`,
	} {
		submit(t, client, "acme", command(name, "open", name+"-open", map[string]any{"owner": "ada"}))
		natstest.PublishStrange(t, js, natstest.Strange{Name: name}, "acme", "wallet", name, "deposited", 2, data)
		dry := deposit(name, "", 1)
		dry.DryRun = true
		for _, client := range []gatewayv1connect.CommandServiceClient{client, other} {
			_, read := get(t, client, name)
			_, written := client.Submit(as(t, "acme"), deposit(name, "", 1))
			_, tried := client.Submit(as(t, "acme"), dry)
			for _, err := range []error{read, written, tried} {
				known, ok := errors.AsType[*connect.Error](err)
				if !ok || known.Code() != connect.CodeFailedPrecondition ||
					!strings.Contains(
						err.Error(),
						"cannot apply the event wallet.deposited (other-wallet-"+name+", version 2) of wallet/"+name,
					) {
					t.Errorf("%s: %v, want FAILED_PRECONDITION with the event", name, err)
					continue
				}
				reason := ""
				for _, detail := range known.Details() {
					if value, err := connectproto.UnmarshalErrorDetail(detail); err == nil {
						if info, ok := value.(*errdetails.ErrorInfo); ok {
							reason = info.GetReason()
						}
					}
				}
				if reason != "EVENT_NOT_APPLICABLE" {
					t.Errorf("%s: reason %q", name, reason)
				}
			}
		}
		if early, err := client.GetAggregate(
			as(t, "acme"), &aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: name, Version: 1},
		); err != nil || early.GetVersion() != 1 {
			t.Errorf("%s: version 1: %v, %v", name, early, err)
		}
	}
}
