package runner_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	adminv1 "github.com/headgate/headgate/gen/runner/admin/v1"
	"github.com/headgate/headgate/internal/deadletter"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/natstest"
)

func TestListDeadLetters_PagesEndAtByteLimit(t *testing.T) {
	f := start(t)
	acme := natstest.Tenant(t, "acme")
	var want []string
	for n, length := range []int{400_000, 400_000, 400_000, 1, 800_000, 2, 800_000} {
		id := fmt.Sprintf("t%d", n)
		want = append(want, id)
		event := journal.Event{
			ID:            contextkit.NewID(),
			Type:          "requested",
			AggregateType: "transfer",
			AggregateID:   id,
			Version:       1,
			Data:          fmt.Appendf(nil, `{"from":%q,"to":"b","amount":1}`, strings.Repeat("a", length)),
		}
		if err := deadletter.Store(
			as(t, "acme"), f.js, acme, event, deadletter.Origin{Work: "test"}, errors.New("of a test"),
		); err != nil {
			t.Fatal(err)
		}
	}
	var (
		got   []string
		token string
	)
	for pages := 1; ; pages++ {
		res, err := f.admin.ListDeadLetters(as(t, "acme"),
			&adminv1.ListDeadLettersRequest{PageSize: 500, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		if size := proto.Size(res); size > 1<<20 && len(res.GetLetters()) > 1 {
			t.Errorf("page %d has %d letters in %d bytes", pages, len(res.GetLetters()), size)
		}
		for _, letter := range res.GetLetters() {
			got = append(got, letter.GetAggregateId())
		}
		if token = res.GetNextPageToken(); token == "" {
			break
		}
		if _, err := f.admin.ListDeadLetters(
			as(t, "globex"), &adminv1.ListDeadLettersRequest{PageToken: token},
		); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("page token of another tenant: %v", err)
		}
		if _, err := f.admin.ListWorkflows(
			as(t, "acme"), &adminv1.ListWorkflowsRequest{PageToken: token},
		); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("page token of another list: %v", err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("letters of all pages: got %v, want %v", got, want)
	}
}
