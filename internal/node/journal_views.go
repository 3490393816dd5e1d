package node

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/headgate/headgate/backbone"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// viewsDir returns the directory of a store's views; "": they are in PostgreSQL, or elsewhere.
func (s Store) viewsDir() (string, error) {
	if s.Data != "" {
		return filepath.Join(s.Data, "views"), nil
	}
	settings, err := readSettings(s.Config)
	if err != nil || settings.Projection.Postgres != "" {
		return "", err
	}
	return settings.Projection.Data, nil
}

// compareViews compares the checkpoints of a store's views with the journal. beyond names the
// views that have followed it beyond its end, which proves that the end is missing, and unread
// those that could not be compared.
func (s Store) compareViews(ctx context.Context, report *backbone.JournalReport) (beyond, unread []string, err error) {
	dir, err := s.viewsDir()
	if err != nil || dir == "" {
		return nil, nil, err
	}
	files, err := sqlite.Files(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		switch {
		case file.Err != nil:
			unread = append(unread, fmt.Sprintf("the views of tenant %s in %s are not compared: %v", file.Tenant, file.Path, file.Err))
		case projection.OfEpoch(file.Origin, report.Epoch) && file.Checkpoint > report.Last:
			beyond = append(beyond, fmt.Sprintf("the views of tenant %s in %s have followed the journal to sequence %d, and it ends at %d", file.Tenant, file.Path, file.Checkpoint, report.Last))
		}
	}
	return beyond, unread, nil
}
