package node

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"
)

// Views whose directory has disappeared are written to files that are lost when the process ends.
func TestViewsDirectory_DisappearsAndIsBack(t *testing.T) {
	var lines bytes.Buffer
	path := filepath.Join(t.TempDir(), "views")
	views, err := openViewsDirectory(path, zerolog.New(&lines))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = views.close() }()
	check := func(want error, present string) {
		t.Helper()
		for range 2 { // a change is logged once
			views.examine()
		}
		if err := views.ready(); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
		expected := "# HELP headgate_data_directory_present 1 while the directory that the process opened is " +
			"present; 0 after it was removed, moved or unmounted.\n" +
			"# TYPE headgate_data_directory_present gauge\nheadgate_data_directory_present{directory=\"views\"} " + present + "\n"
		if err := testutil.CollectAndCompare(
			views, strings.NewReader(expected), "headgate_data_directory_present",
		); err != nil {
			t.Error(err)
		}
	}
	check(nil, "1")
	moved := path + "-moved"
	if err := os.Rename(path, moved); err != nil {
		t.Fatal(err)
	}
	check(errViewsGone, "0")
	if err := os.Mkdir(path, 0o700); err != nil { // not the one with the views
		t.Fatal(err)
	}
	check(errViewsGone, "0")
	if err := errors.Join(os.Remove(path), os.Rename(moved, path)); err != nil {
		t.Fatal(err)
	}
	check(nil, "1")
	if count := strings.Count(lines.String(), "\n"); count != 2 || !strings.Contains(lines.String(), path) {
		t.Errorf("%s: want two lines with the directory", lines.String())
	}
}
