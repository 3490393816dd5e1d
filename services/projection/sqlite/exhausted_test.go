//go:build unix

package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/descriptors"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection/store"
)

func TestOpen_TooManyOpenFilesIsReportedAndTransient(t *testing.T) {
	registry, err := model.Open(t.Context(), model.Wallet)
	if err != nil {
		t.Fatal(err)
	}
	views := registry.Current().Views()
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open := func() error {
		s, err := Open(t.Context(), dir, tenant, views, "origin")
		if err == nil {
			err = s.Close()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }()
	low := before
	low.Cur = 3
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	err = open()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, store.ErrUnavailable) || !descriptors.Exhausted(err) ||
		!strings.Contains(err.Error(), "too many open files") || errors.Is(err, store.ErrDamaged) {
		t.Errorf("error %v, want one with the cause", err)
	}
	if err := open(); err != nil {
		t.Errorf("open once files can be opened again: %v", err)
	}
	if set, _ := filepath.Glob(filepath.Join(dir, "*damaged*")); len(set) > 0 {
		t.Errorf("an intact file was set aside: %v", set)
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error(err)
	}
}
