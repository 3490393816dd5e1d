package projection_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/proto"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/token"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/store"
)

const pageBytes = 1 << 20

// longOwners is the wallet model without the index of owners, which PostgreSQL bounds to 2704 bytes.
func longOwners(t *testing.T) model.Source {
	var c changing
	text := strings.Replace(wallet(t), "owner: {type: string, index: true}", "owner: string", 1)
	c.text.Store(&text)
	return c.source
}

// fillLarge gives acme wallets whose owners have very different lengths, and returns their ids.
func (f *fixture) fillLarge(t testing.TB) []string {
	var ids []string
	for i, length := range []int{3, 900_000, 900_000, 10, 400_000, 400_000, 400_000, 1, 2, 700_000, 5, 300, 900_000} {
		id := fmt.Sprintf("w%02d", i)
		ids = append(ids, id)
		// Equal prefixes: some differ only at their ends.
		f.append(t, "acme", id, "opened", fmt.Sprintf(`{"owner":%q}`, strings.Repeat("o", length)+fmt.Sprint(i%3)))
		f.append(t, "acme", id, "deposited", fmt.Sprintf(`{"amount":%d,"reference":"start"}`, i%4+1))
	}
	return ids
}

// pagesOf returns the wallets' ids, page by page.
func (f *fixture) pagesOf(t testing.TB, q *projectionv1.Query) (ids []string, pages int) {
	t.Helper()
	position := f.position(t, "acme")
	for {
		res, err := f.client.Query(as(t, "acme"),
			&projectionv1.QueryRequest{View: "wallets", Query: q, MinPosition: position})
		if err != nil {
			t.Fatalf("page %d: %v", pages, err)
		}
		pages++
		if size := proto.Size(res); size > pageBytes && len(res.GetRows()) > 1 {
			t.Errorf("page %d has %d rows in %d bytes", pages, len(res.GetRows()), size)
		}
		for _, row := range res.GetRows() {
			ids = append(ids, row.GetFields()["wallet_id"].GetStringValue())
		}
		q.PageToken = res.GetNextPageToken()
		if len(q.PageToken) > 4096 {
			t.Errorf("page token of %d bytes", len(q.PageToken))
		}
		if q.PageToken == "" {
			return ids, pages
		}
	}
}

func TestQuery_PagesEndAtByteLimit(t *testing.T) { overBoth(t, queryPagesEndAtByteLimit) }

func queryPagesEndAtByteLimit(t *testing.T, newStore func(t *testing.T) store.Opener) {
	if testing.Short() {
		t.Skip("one client reads much data; shorter tests cover this under the race detector")
	}
	f := start(t, natstest.Start(t), newStore(t), longOwners(t))
	want := f.fillLarge(t)
	for _, q := range []*projectionv1.Query{
		{}, {PageSize: 1000}, {PageSize: 1},
		{OrderBy: "owner"}, {OrderBy: "owner desc"}, {OrderBy: "balance desc, owner"}, {OrderBy: "updated_at"},
		{Filter: `owner:"o"`}, {Filter: `balance > 0`, OrderBy: "balance"},
	} {
		t.Run(fmt.Sprintf("%v", q), func(t *testing.T) {
			got, pages := f.pagesOf(t, q)
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("rows of %d pages: %v, want each once: %v", pages, got, want)
			}
			if pages < 5 {
				t.Errorf("%d pages for 5 MB of rows", pages)
			}
		})
	}
	// Columns that are not requested do not count.
	if got, pages := f.pagesOf(t, &projectionv1.Query{OrderBy: "owner", Fields: []string{"wallet_id"}}); pages != 1 ||
		len(got) != len(want) {
		t.Errorf("%d pages of ids, with %d rows", pages, len(got))
	}
}

func TestQuery_PagesOverLongTextsAreOrdered(t *testing.T) {
	if testing.Short() {
		t.Skip("one client reads much data; shorter tests cover this under the race detector")
	}
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		f := start(t, natstest.Start(t), newStore(t), longOwners(t))
		f.fillLarge(t)
		whole, _ := f.pagesOf(t, &projectionv1.Query{OrderBy: "owner desc", Fields: []string{"wallet_id"}})
		got, _ := f.pagesOf(t, &projectionv1.Query{OrderBy: "owner desc"})
		if !slices.Equal(got, whole) {
			t.Errorf("rows of all pages: got %v, want %v", got, whole)
		}
	})
}

func TestQuery_ChangedRowAtPageEndIsReported(t *testing.T) {
	overBoth(t, func(t *testing.T, newStore func(t *testing.T) store.Opener) {
		f := start(t, natstest.Start(t), newStore(t), longOwners(t))
		f.fillLarge(t)
		q := &projectionv1.Query{OrderBy: "owner desc", PageSize: 1, Fields: []string{"wallet_id"}}
		res, err := f.client.Query(as(t, "acme"),
			&projectionv1.QueryRequest{View: "wallets", Query: q, MinPosition: f.position(t, "acme")})
		if err != nil {
			t.Fatal(err)
		}
		f.append(t, "acme", res.GetRows()[0].GetFields()["wallet_id"].GetStringValue(), "opened", `{"owner":"another"}`)
		q.PageToken = res.GetNextPageToken()
		_, err = f.client.Query(as(t, "acme"),
			&projectionv1.QueryRequest{View: "wallets", Query: q, MinPosition: f.position(t, "acme")})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v, want INVALID_ARGUMENT", err)
		}
	})
}

func TestWatch_MessagesEndAtByteLimit(t *testing.T) { overBoth(t, watchMessagesEndAtByteLimit) }

func watchMessagesEndAtByteLimit(t *testing.T, newStore func(t *testing.T) store.Opener) {
	if testing.Short() {
		t.Skip("one client reads much data; shorter tests cover this under the race detector")
	}
	f := start(t, natstest.Start(t), newStore(t), longOwners(t))
	f.append(t, "acme", "a", "opened", `{"owner":"ada"}`)
	before := f.position(t, "acme")
	want := append([]string{"a"}, f.fillLarge(t)...)
	within(t, "acme is served", func() bool {
		_, err := f.client.Get(as(t, "acme"),
			&projectionv1.GetRequest{View: "wallets", Key: "a", MinPosition: f.position(t, "acme")})
		return err == nil
	})
	for name, req := range map[string]*projectionv1.WatchRequest{"all rows": {}, "missed rows": {After: before}} {
		w := f.watch(t, req)
		seen := map[string]bool{"a": req.GetAfter() != ""}
		for position := ""; position == ""; {
			message, err := w.receive()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if size := proto.Size(message); size > pageBytes && len(message.GetChanges()) > 1 {
				t.Errorf("%s: message with %d changes in %d bytes", name, len(message.GetChanges()), size)
			}
			for _, change := range message.GetChanges() {
				if seen[change.GetKey()] || change.GetRow() == nil {
					t.Errorf("%s: row %s is sent twice, or removed", name, change.GetKey())
				}
				seen[change.GetKey()] = true
			}
			position = message.GetPosition()
		}
		if len(seen) != len(want) {
			t.Errorf("%s: %d rows, want %d", name, len(seen), len(want))
		}
		w.close()
	}
}

func TestQuery_UnreadResponsesAreChargedToTheirTenant(t *testing.T) {
	f := startWith(t, natstest.Start(t), sqliteIn(t), longOwners(t),
		projection.Config{Answers: response.Config{TenantBytes: 2 << 20}})
	f.fillLarge(t)
	f.append(t, "globex", "secret", "opened", fmt.Sprintf(`{"owner":%q}`, strings.Repeat("g", 900_000)))
	query := func(ctx context.Context) error {
		_, err := f.client.Query(
			ctx,
			&projectionv1.QueryRequest{
				View:  "wallets",
				Query: &projectionv1.Query{PageSize: 1000, OrderBy: "owner desc"},
			},
		)
		return err
	}
	within(t, "the views are complete", func() bool {
		_, err := f.client.Get(as(t, "acme"), &projectionv1.GetRequest{
			View:        "wallets",
			Key:         "w12",
			Fields:      []string{"balance"},
			MinPosition: f.position(t, "acme"),
		})
		return err == nil
	})
	unread, read := context.WithCancel(as(t, "acme")) // calls that do not end, since their client does not read
	defer read()
	refused := 0
	for range 20 {
		if err := query(unread); connect.CodeOf(err) == connect.CodeResourceExhausted {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		call, end := context.WithCancel(as(t, "globex"))
		within(t, "call of another tenant succeeds",
			func() bool { return query(call) == nil }) // once its previous one is released
		end()
	}
	if refused != 18 {
		t.Errorf("%d of 20 calls are rejected, want all but 2 of about 900 kB", refused)
	}
	read()
	within(t, "the tenant's calls succeed after the response was read",
		func() bool { return query(as(t, "acme")) == nil })
}

// The reported progress of a view is a position and a percentage, since sequences of the journal would reveal to a
// tenant how many events the others have.
func TestListViews_ProgressRevealsNoSequence(t *testing.T) {
	for name, tc := range map[string]struct {
		gate  *token.Gate
		known bool
	}{
		"all nodes read version 2":                {nil, false},
		"required by nodes of an earlier version": {&token.Gate{}, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := startWith(t, natstest.Start(t), sqliteIn(t), longOwners(t), projection.Config{Tokens: tc.gate})
			for i := range 5 {
				f.append(t, "globex", fmt.Sprint("secret", i), "opened", `{"owner":"grace"}`)
			}
			f.append(t, "acme", "w", "opened", `{"owner":"ada"}`)
			within(t, "the view is complete", func() bool {
				_, err := f.client.Get(as(t, "acme"),
					&projectionv1.GetRequest{View: "wallets", Key: "w", MinPosition: f.position(t, "acme")})
				return err == nil
			})
			res, err := f.client.ListViews(as(t, "acme"), &projectionv1.ListViewsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			g := res.GetGenerations()[0]
			if known := g.GetApplied() != 0; known != tc.known || g.GetPercent() != 100 ||
				g.GetAppliedPosition() == "" {
				t.Errorf("reported: %v", g)
			}
		})
	}
}
