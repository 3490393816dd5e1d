package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// Found is a file of a tenant's views.
type Found struct {
	// Path is the path of the file, and Tenant the tenant according to its name.
	Path, Tenant string
	// Origin identifies the model and journal of the file's views. Checkpoint is a lower bound of the sequence that
	// they have reached, since the write-ahead log is not read.
	Origin     string
	Checkpoint uint64
	// Err is the reason why the file cannot be read, or nil.
	Err error
}

// Files returns the files of views in a directory, in order, and reads each without changing it. A file that a
// process is writing to may be unreadable.
func Files(ctx context.Context, dir string) ([]Found, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.db"))
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	found := make([]Found, 0, len(paths))
	for _, path := range paths {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		tenant, _, _ := strings.Cut(filepath.Base(path), ".")
		file := Found{Path: path, Tenant: tenant}
		file.Err = file.read(ctx)
		found = append(found, file)
	}
	return found, nil
}

// read reads the checkpoint from the file itself, without a lock.
func (f *Found) read(ctx context.Context) error {
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: f.Path}).EscapedPath()+"?mode=ro&immutable=1")
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	db.SetMaxOpenConns(1)
	defer func() { _ = db.Close() }() // the file was only read
	var sequence int64
	if err := db.QueryRowContext(
		ctx, `SELECT sequence, origin FROM "_checkpoint"`,
	).Scan(&sequence, &f.Origin); err != nil {
		return fmt.Errorf("sqlite: read checkpoint: %w", err)
	}
	f.Checkpoint = uint64(max(sequence, 0))
	return nil
}
