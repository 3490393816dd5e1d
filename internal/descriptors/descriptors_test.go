//go:build unix

package descriptors

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestCompare_WarnsOrFails(t *testing.T) {
	needs := []Need{{"the process", 100, true}, {"connections (max_connections)", 1000, false}}
	for limit, want := range map[uint64][2]string{
		99: {"", "may have 99 open files, and needs at least 100"},
		100: {
			"may have 100 open files, and the settings allow it to need 1100 (100 for the process, 1000 for " +
				"connections (max_connections))",
			"",
		},
		1099: {"may have 1099 open files", ""},
		1100: {"", ""},
	} {
		warning, err := compare(limit, needs)
		if err == nil {
			err = errors.New("")
		}
		if !strings.Contains(warning, want[0]) || (want[0] == "") != (warning == "") ||
			!strings.Contains(err.Error(), want[1]) || (want[1] == "") != (err.Error() == "") {
			t.Errorf("%d: %q, %v, want %q", limit, warning, err, want)
		}
	}
}

func TestCheck_RaisesTheSoftLimit(t *testing.T) {
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }()
	low := before
	low.Cur = min(before.Max, 256)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	if warning, err := Check(Need{"the process", 100, true}); warning != "" || err != nil {
		t.Error(warning, err)
	}
	var after syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &after); err != nil || after.Cur != after.Max {
		t.Errorf("%+v, %v: want the hard limit", after, err)
	}
}

// SQLite reports that it cannot open a file, without the cause.
func TestExplain_AddsHiddenCause(t *testing.T) {
	hidden := errors.New("unable to open database file (14)")
	if got := Explain(hidden); got != hidden { //nolint:errorlint // it is the same
		t.Errorf("%v while files can be opened", got)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) }()
	low := before
	low.Cur = 3 // standard input, output and error
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, opened := os.Open(os.DevNull)
	_, dialed := net.Dial("udp", "127.0.0.1:9")
	err := Explain(hidden)
	if !errors.Is(err, hidden) || !Exhausted(err) || !strings.HasPrefix(err.Error(), "too many open files") {
		t.Errorf("%v", err)
	}
	for _, plain := range []error{opened, dialed, fmt.Errorf("wrapped: %w", opened)} {
		if !Exhausted(plain) || Explain(plain) != plain { //nolint:errorlint // it is the same
			t.Errorf("%v is not known, or explained twice", plain)
		}
	}
}
