package main_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// limited returns a process with a limit of open files.
func limited(files int, ready string, args ...string) *process {
	return &process{
		path:  "/bin/bash",
		ready: ready,
		args:  append([]string{"-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files), binary}, args...),
	}
}

func TestOpenFiles_TooFewAreRefusedAtStart(t *testing.T) {
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	dir := t.TempDir()
	c := &cluster{dir: dir}
	config := c.write(t, "headgate.yaml", "aggregate: {server: {listen: 127.0.0.1:0}}\n")
	for _, args := range [][]string{
		{"serve", "aggregate", "--config", config},
		{"dev", "--data", filepath.Join(dir, "data")},
	} {
		p := limited(40, "", args...)
		output, err := exec.CommandContext(t.Context(), p.path, p.args...).CombinedOutput()
		if err == nil || !strings.Contains(string(output), "the process may have 40 open files, and needs at least") {
			t.Errorf("%v: %v: %s", args, err, output)
		}
	}
}

// Whichever way a process waits for connections, it reports that no open file is left.
func TestOpenFiles_ExhaustionIsSaidAndPasses(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	c := &cluster{dir: t.TempDir()}
	main, grpc := freePort(t), freePort(t)
	c.startNATS(t, 1)
	config := c.write(t, "headgate.yaml",
		fmt.Sprintf("nats: %s\nlog: warn\naggregate: {server: {listen: %q}, grpc: %q}\n", c.bus, main, grpc))
	p := limited(120, "listens on", "serve", "aggregate", "--config", config)
	p.start(t)
	if !strings.Contains(p.log(), "the process may have 120 open files, and the settings allow it to need") {
		t.Errorf("no warning at start:\n%s", p.log())
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, addr := range []string{main, grpc} {
		before := strings.Count(p.log(), "too many open files: connections cannot be accepted")
		var open []net.Conn
		for range 150 {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, conn)
		}
		if err := eventually(ctx, "the process reports that no open file is left", func() (bool, error) {
			return strings.Count(p.log(), "too many open files: connections cannot be accepted") > before, nil
		}); err != nil {
			t.Fatal(addr, err)
		}
		for _, conn := range open {
			_ = conn.Close()
		}
		if err := eventually(ctx, "the process is ready again", func() (bool, error) {
			status, _, err := get(ctx, "http://"+main+"/ready")
			if err != nil {
				return false, nil //nolint:nilerr // it may not accept yet
			}
			return status == http.StatusOK && strings.Count(p.log(), "connections are accepted again") > before, nil
		}); err != nil {
			t.Fatal(addr, err, p.log())
		}
	}
	if status, text, err := get(ctx, "http://"+main+"/metrics"); err != nil || status != http.StatusOK ||
		strings.Contains(text, `headgate_accept_failures_total{process="aggregate"} 0`) {
		t.Errorf("failures counted: %d, %v", status, err)
	}
	p.stop(t)
}
