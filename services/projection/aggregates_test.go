package projection_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/natstest"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/postgres/postgrestest"
	"github.com/headgate/headgate/services/projection/sqlite"
	"github.com/headgate/headgate/services/projection/store"
)

// found returns the ids of all pages of aggregates of acme, and the last page.
func (f *fixture) found(
	t *testing.T, req *projectionv1.FindAggregatesRequest,
) (ids []string, last *projectionv1.FindAggregatesResponse) {
	t.Helper()
	for {
		res, err := f.client.FindAggregates(as(t, "acme"), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, one := range res.GetAggregates() {
			if one.GetAggregateType() != req.GetAggregateType() || one.GetFirstEventType() != "opened" ||
				one.GetCreated().AsTime().IsZero() {
				t.Errorf("%v", one)
			}
			ids = append(ids, one.GetAggregateId())
		}
		if req.PageToken = res.GetNextPageToken(); req.GetPageToken() == "" {
			return ids, res
		}
	}
}

func TestFindAggregates_ByTheBeginningOfTheID(t *testing.T) { overBoth(t, findByTheBeginningOfTheID) }

func findByTheBeginningOfTheID(t *testing.T, newStore func(t *testing.T) store.Opener) {
	f := start(t, natstest.Start(t), newStore(t), model.Wallet)
	all := []string{"-", "A", "Z-9", "_", "a", "a-1", "a_", "ab", "abc", "abd", "b", strings.Repeat("z", 128)}
	for n, id := range slices.Backward(all) { // not in the order of their ids
		f.append(t, "acme", id, "opened", `{"owner":"Ada"}`)
		if n%3 == 0 {
			f.append(t, "acme", id, "deposited", `{"amount":1}`)
		}
	}
	f.append(t, "globex", "abx", "opened", `{"owner":"Eve"}`)
	position := f.position(t, "acme")
	for prefix, want := range map[string][]string{
		"": all, "a": all[4:10], "ab": all[7:10], "abd": all[9:10], "abx": nil, "z": all[11:], "zz": all[11:],
		"-": all[:1],
		"_": all[3:4], strings.Repeat("z", 128): all[11:],
	} {
		for _, size := range []int32{0, 1, 2, int32(max(len(want), 1))} {
			got, last := f.found(t, &projectionv1.FindAggregatesRequest{
				AggregateType: "wallet",
				IdPrefix:      prefix,
				PageSize:      size,
				MinPosition:   position,
			})
			if !slices.Equal(got, want) || last.GetIncomplete() || last.GetPercent() != 100 ||
				last.GetPosition() != position {
				t.Errorf("%q in pages of %d: %q, want %q; %v", prefix, size, got, want, last)
			}
		}
	}
	if got, _ := f.found(t, &projectionv1.FindAggregatesRequest{AggregateType: "transfer"}); len(got) > 0 {
		t.Errorf("of another type there are %q", got)
	}
	first, err := f.client.FindAggregates(as(t, "acme"),
		&projectionv1.FindAggregatesRequest{AggregateType: "wallet", PageSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, req := range []*projectionv1.FindAggregatesRequest{
		{AggregateType: "wallet", IdPrefix: "a", PageToken: first.GetNextPageToken()},
		{AggregateType: "transfer", PageToken: first.GetNextPageToken()},
		{AggregateType: "wallet", PageToken: "x"},
		{AggregateType: "wallet", MinPosition: "x"},
	} {
		if _, err := f.client.FindAggregates(as(t, "acme"), req); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%v: %v", req, err)
		}
	}
	if _, err := f.client.FindAggregates(as(t, "globex"), &projectionv1.FindAggregatesRequest{
		AggregateType: "wallet",
		PageToken:     first.GetNextPageToken(),
	}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("another tenant's token: %v", err)
	}
}

// earlier makes the views what a version without an index of aggregates has made of them.
type earlier func(t *testing.T)

// A version without an index applies events before and, beside this version in one database, after the upgrade. The
// index gets all aggregates nevertheless.
func TestFindAggregates_IndexIsFilledAfterEarlierVersions(t *testing.T) {
	const forget = `UPDATE "_checkpoint" SET indexed = 0`
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		filledAfterEarlierVersions(t, sqlite.In(dir), func(t *testing.T) {
			paths, err := filepath.Glob(filepath.Join(dir, "acme.*.db"))
			if err != nil || len(paths) != 1 {
				t.Fatal(paths, err)
			}
			db, err := sql.Open("sqlite", "file:"+paths[0])
			if err != nil {
				t.Fatal(err)
			}
			_, err = db.ExecContext(t.Context(), forget+`; DELETE FROM "_aggregates"`)
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
		})
	})
	t.Run("postgres", func(t *testing.T) {
		s, err := server()
		if errors.Is(err, postgrestest.ErrNotInstalled) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		url := s.Database(t)
		database, err := postgres.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(database.Close)
		filledAfterEarlierVersions(t, database.Views, func(t *testing.T) {
			conn, err := pgx.Connect(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
			var schema string
			err = conn.QueryRow(t.Context(), `SELECT name FROM headgate.generations`).Scan(&schema)
			for _, statement := range []string{
				fmt.Sprintf(
					`SELECT set_config('headgate.tenant', 'acme', false), set_config('search_path', '%s', false)`,
					schema,
				),
				forget, `DELETE FROM _aggregates`,
			} {
				if err == nil {
					_, err = conn.Exec(t.Context(), statement)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	})
}

func filledAfterEarlierVersions(t *testing.T, open store.Opener, forget earlier) {
	t.Helper()
	js := natstest.Start(t)
	f := start(t, js, open, model.Wallet)
	f.fill(t)
	f.append(t, "acme", "x1", "opened", `{"owner":"Ada"}`)
	want := []string{"w0", "w1", "w2", "w3", "w4", "x1"}
	position := f.position(t, "acme")
	if got, last := f.found(t, &projectionv1.FindAggregatesRequest{
		AggregateType: "wallet",
		MinPosition:   position,
	}); !slices.Equal(got, want) || last.GetIncomplete() {
		t.Fatalf("%q, %v", got, last)
	}
	f.stop()
	forget(t)
	f = start(t, js, open, model.Wallet)
	f.last, f.versions = map[string]uint64{}, map[string]int64{}
	f.append(t, "acme", "x0", "opened", `{"owner":"Ada"}`) // applied while the index is behind
	want = append(want[:5:5], "x0", "x1")
	complete := func() (got []string) {
		within(t, "the index is complete", func() bool {
			var last *projectionv1.FindAggregatesResponse
			got, last = f.found(t, &projectionv1.FindAggregatesRequest{
				AggregateType: "wallet",
				PageSize:      2,
				MinPosition:   f.position(t, "acme"),
			})
			return !last.GetIncomplete() && last.GetPercent() == 100
		})
		return got
	}
	if got := complete(); !slices.Equal(got, want) {
		t.Errorf("after the upgrade: %q, want %q", got, want)
	}
	f.append(t, "acme", "y", "opened", `{"owner":"Ada"}`)
	if got := complete(); !slices.Equal(got, append(want, "y")) {
		t.Errorf("in step again: %q", got)
	}
	if value := gathered(t, f.service)["headgate_projection_indexing_tenants{}"]; value != 0 {
		t.Errorf("%v indexes are being filled", value)
	}
}
