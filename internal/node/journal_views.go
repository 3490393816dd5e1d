package node

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/journal"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/postgres"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// compared is the result of comparing a store's views with a journal.
type compared struct {
	// beyond lists the views that have followed the journal beyond its end, which proves that the end is missing;
	// unread lists the views that could not be compared.
	beyond, unread []string
}

// follow compares a checkpoint with the journal's end.
func (c *compared) follow(report *journal.Report, tenant, where string, checkpoint uint64) {
	if checkpoint > report.Last {
		c.beyond = append(
			c.beyond,
			fmt.Sprintf("the views of tenant %s in %s have followed the journal to sequence %d, and it ends at %d",
				tenant, where, checkpoint, report.Last),
		)
	}
}

// compareViews compares the checkpoints of a store's views with the journal.
func (s Store) compareViews(ctx context.Context, js jetstream.JetStream, report *journal.Report) (compared, error) {
	if s.Data != "" {
		return compareFiles(ctx, filepath.Join(s.Data, "views"), report)
	}
	settings, err := readSettings(s.Config)
	switch {
	case err != nil:
		return compared{}, err
	case settings.Projection.Postgres != "":
		return compareDatabase(ctx, js, settings.Projection.Postgres, report)
	case settings.Projection.Data != "":
		return compareFiles(ctx, settings.Projection.Data, report)
	}
	return compared{}, nil
}

// compareFiles compares the views in SQLite files.
func compareFiles(ctx context.Context, dir string, report *journal.Report) (c compared, err error) {
	files, err := sqlite.Files(ctx, dir)
	if err != nil {
		return c, err
	}
	for _, file := range files {
		switch {
		case file.Err != nil:
			c.unread = append(c.unread,
				fmt.Sprintf("the views of tenant %s in %s are not compared: %v", file.Tenant, file.Path, file.Err))
		case projection.OfEpoch(file.Origin, report.Epoch):
			c.follow(report, file.Tenant, file.Path, file.Checkpoint)
		}
	}
	return c, nil
}

// compareDatabase compares the views in PostgreSQL of the tenants that the journal, its snapshots or the bucket of
// tenants name, since the database hides other tenants.
func compareDatabase(
	ctx context.Context, js jetstream.JetStream, url string, report *journal.Report,
) (c compared, err error) {
	bucket, err := kv.Open[fleet.Tenant](ctx, js, streams.BucketTenants)
	if err != nil {
		return c, err
	}
	created, err := bucket.All(ctx)
	if err != nil {
		return c, err
	}
	names := slices.Clone(report.Tenants)
	for name := range created {
		names = append(names, name)
	}
	slices.Sort(names)
	var tenants []contextkit.TenantID
	for _, name := range slices.Compact(names) {
		if tenant, err := contextkit.ParseTenantID(name); err == nil {
			tenants = append(tenants, tenant)
		}
	}
	found, unknown, err := postgres.Checkpoints(ctx, url, tenants,
		func(origin string) bool { return projection.OfEpoch(origin, report.Epoch) })
	if err != nil {
		c.unread = append(c.unread, fmt.Sprintf("the views in PostgreSQL are not compared: %v", err))
	}
	for _, view := range found {
		c.follow(report, view.Tenant.String(), "the schema "+view.Schema+" of PostgreSQL", view.Checkpoint)
	}
	for _, schema := range unknown {
		c.unread = append(
			c.unread,
			fmt.Sprintf(
				"the views in the schema %s of PostgreSQL are not compared: an earlier version has made them, and "+
					"does not record of which journal",
				schema,
			),
		)
	}
	return c, nil
}
