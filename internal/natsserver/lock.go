package natsserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// lock locks dir for this process until the file is closed: two servers over one store would
// destroy it.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("natsserver: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("natsserver: %w", err)
	}
	if err := lockFile(file); err != nil {
		return nil, errors.Join(fmt.Errorf("natsserver: %s is used by another process", dir), file.Close())
	}
	return file, nil
}
