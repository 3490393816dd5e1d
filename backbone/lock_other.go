//go:build !unix

package backbone

import (
	"fmt"
	"os"
	"path/filepath"
)

// lock opens the file that locks dir where the system can.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("backbone: %w", err)
	}
	return file, nil
}
