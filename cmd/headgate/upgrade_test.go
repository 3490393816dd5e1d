package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// earlierProgram returns the program of an earlier version: [beforeVariable] is its path, or the commit or tag that it
// is built from. The test is skipped without it.
func earlierProgram(t *testing.T) string {
	t.Helper()
	before := os.Getenv(beforeVariable)
	if before == "" {
		t.Skip("set " + beforeVariable + " to the program of an earlier version, or to its tag or commit")
	}
	if _, err := os.Stat(before); err == nil {
		return before
	}
	dir := t.TempDir()
	source, err := exec.CommandContext(t.Context(), "git", "-C", "../..", "archive", before).Output()
	if err != nil {
		t.Fatalf("%s is neither a program nor a commit: %v", before, err)
	}
	unpack := exec.CommandContext(t.Context(), "tar", "-x", "-C", dir)
	unpack.Stdin = bytes.NewReader(source)
	if output, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	program := filepath.Join(dir, "headgate-before")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/headgate")
	build.Dir = dir
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", before, err, output)
	}
	return program
}

// balanced are clients of several gateways. As a load balancer and clients do, a call goes to the next gateway while
// one is UNAVAILABLE, or has closed the connection on which the call was sent: reads and keyed commands may be
// repeated.
type balanced []api

// try makes a call at up to each gateway twice, beginning with the n-th.
func (b balanced) try(n int, call func(api) error) error {
	var err error
	for attempt := range 2 * len(b) {
		err = call(b[(n+attempt)%len(b)])
		var closed *url.Error
		if connect.CodeOf(err) != connect.CodeUnavailable && !errors.As(err, &closed) {
			return err
		}
	}
	return err
}

// upgradeLoad deposits under keys, and reads each deposit's effect, until it is stopped.
type upgradeLoad struct {
	gateways balanced
	tenant   contextkit.TenantID
	accepted [3]atomic.Int64 // by wallet: one client each
	reads    atomic.Int64
}

// run is the load of one client on its wallet.
func (l *upgradeLoad) run(ctx context.Context, client int, stop <-chan struct{}) error {
	ctx = contextkit.TenantContext(ctx, l.tenant)
	wallet := fmt.Sprint("w", client)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		position := ""
		req := request("wallet", wallet, "deposit", fmt.Sprintf("%s-%d", wallet, n), map[string]any{"amount": 1})
		if n == 0 {
			req = request("wallet", wallet, "open", wallet+"-open", map[string]any{"owner": "load"})
		}
		if err := l.gateways.try(client+n, func(a api) error {
			attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			res, err := a.commands.Submit(attempt, req)
			position = res.GetPosition()
			return err
		}); err != nil {
			return fmt.Errorf("command %s: %w", req.GetIdempotencyKey(), err)
		}
		if n > 0 {
			l.accepted[client].Add(1)
		}
		if err := l.gateways.try(client+n+1, func(a api) error {
			attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			res, err := a.queries.Get(attempt,
				&projectionv1.GetRequest{View: "wallets", Key: wallet, MinPosition: position})
			if err != nil {
				return err
			}
			if got := int64(res.GetRow().AsMap()["balance"].(float64)); got != l.accepted[client].Load() {
				return fmt.Errorf("balance of %s is %d after %d deposits", wallet, got, l.accepted[client].Load())
			}
			l.reads.Add(1)
			return nil
		}); err != nil {
			return fmt.Errorf("read after %s: %w", req.GetIdempotencyKey(), err)
		}
	}
}

// All nodes are upgraded one by one from an earlier version, go back, and are upgraded again, under load: no keyed
// command and no read fails, each deposit takes effect once, and every read has its writes.
func TestUpgrade_RollingUnderLoadFailsNoCall(t *testing.T) {
	t.Parallel()
	before := earlierProgram(t)
	c := startClusterOf(t, before, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	text, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	nodes := map[string][]*process{}
	second := freePort(t)
	for _, role := range []string{"control", "projection", "aggregate", "runner", "gateway"} {
		if first := c.roles[role]; first != nil {
			nodes[role] = append(nodes[role], first)
		}
		listen := freePort(t)
		section := "  grpc: 127.0.0.1:0"
		switch role {
		case "gateway":
			listen = second
			_, section, _ = strings.Cut(string(text), "  auth:")
			section, _, _ = strings.Cut("  auth:"+section, "\naggregate:")
			section = "  admin: 127.0.0.1:0\n" + section
		case "runner":
			_, section, _ = strings.Cut(string(text), "\nrunner:\n")
			_, section, _ = strings.Cut(section, "\n")
		case "projection":
			section += fmt.Sprintf("\n  data: %q", filepath.Join(c.dir, "views-2"))
		}
		config := c.write(
			t, role+"-2.yaml",
			fmt.Sprintf("nats: %s\nlog: warn\n%s:\n  node: {id: %s-2}\n  server: {listen: %q}\n%s\n",
				c.bus, role, role, listen, section),
		)
		further := &process{path: before, ready: "listens on", args: []string{"serve", role, "--config", config}}
		further.start(t)
		nodes[role] = append(nodes[role], further)
	}
	load := &upgradeLoad{tenant: parseTenant(t, "acme")}
	token := strings.TrimPrefix(c.token(t, "acme", "command.submit", "query.read"), "Bearer ")
	for _, url := range []string{c.gateway, "http://" + second} {
		json, grpc := dial(t, url, token)
		load.gateways = append(load.gateways, json, grpc)
		if err := eventually(ctx, "a gateway knows the nodes", func() (bool, error) {
			_, err := json.queries.Query(contextkit.TenantContext(ctx, load.tenant),
				&projectionv1.QueryRequest{View: "wallets"})
			return err == nil, err
		}); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	clients, working := errgroup.WithContext(ctx)
	for client := range load.accepted {
		clients.Go(func() error { return load.run(working, client, stop) })
	}
	settle := func() {
		reached := load.reads.Load() + 60
		if err := eventually(
			working, "calls succeed", func() (bool, error) { return load.reads.Load() >= reached, nil },
		); err != nil {
			close(stop)
			t.Fatal(clients.Wait())
		}
	}
	for _, program := range []string{binary, before, binary} {
		for _, role := range []string{"control", "projection", "aggregate", "runner", "gateway"} {
			for n, node := range nodes[role] {
				settle()
				node.stop(t)
				node.path = program
				node.start(t)
				t.Logf("%s %d is %s after %d reads", role, n+1, filepath.Base(program), load.reads.Load())
			}
		}
	}
	settle()
	close(stop)
	if err := clients.Wait(); err != nil {
		t.Fatal(err)
	}
	c.checkJournal(ctx, t)
}
