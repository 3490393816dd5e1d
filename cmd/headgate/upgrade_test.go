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
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/internal/access"
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

// upgradeOrder is the order in which the roles are replaced.
var upgradeOrder = []string{"control", "projection", "aggregate", "runner", "gateway"}

// upgrade is a platform with two nodes per role, control included, under load.
type upgrade struct {
	*cluster

	nodes   map[string][]*process
	load    *upgradeLoad
	clients *errgroup.Group
	working context.Context // ends with the first failed call
	stop    chan struct{}
}

// startUpgrade starts the platform with an earlier program, and with users of NATS that usersBy makes; "": without.
func startUpgrade(ctx context.Context, t *testing.T, before, usersBy string) *upgrade {
	t.Helper()
	u := &upgrade{
		cluster: startClusterOf(t, before, usersBy, 1, nil),
		nodes:   map[string][]*process{},
		load:    &upgradeLoad{tenant: parseTenant(t, "acme")},
		stop:    make(chan struct{}),
	}
	text, err := os.ReadFile(u.config)
	if err != nil {
		t.Fatal(err)
	}
	second := freePort(t)
	for _, role := range upgradeOrder {
		if first := u.roles[role]; first != nil {
			u.nodes[role] = append(u.nodes[role], first)
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
			section += fmt.Sprintf("\n  data: %q", filepath.Join(u.dir, "views-2"))
		}
		config := u.write(
			t, role+"-2.yaml",
			fmt.Sprintf("nats: %s\nlog: warn\n%s:\n  node: {id: %s-2}\n  server: {listen: %q}\n%s\n",
				u.bus, role, role, listen, section),
		)
		further := &process{path: before, ready: "listens on", args: []string{"serve", role, "--config", config}}
		further.start(t)
		u.nodes[role] = append(u.nodes[role], further)
	}
	token := strings.TrimPrefix(u.token(t, "acme", "command.submit", "query.read"), "Bearer ")
	for _, url := range []string{u.gateway, "http://" + second} {
		json, grpc := dial(t, url, token)
		u.load.gateways = append(u.load.gateways, json, grpc)
		if err := eventually(ctx, "a gateway knows the nodes", func() (bool, error) {
			_, err := json.queries.Query(contextkit.TenantContext(ctx, u.load.tenant),
				&projectionv1.QueryRequest{View: "wallets"})
			return err == nil, err
		}); err != nil {
			t.Fatal(err)
		}
	}
	u.clients, u.working = errgroup.WithContext(ctx)
	for client := range u.load.accepted {
		u.clients.Go(func() error { return u.load.run(u.working, client, u.stop) })
	}
	return u
}

// settle waits until further calls were answered.
func (u *upgrade) settle(t *testing.T) {
	t.Helper()
	reached := u.load.reads.Load() + 60
	if err := eventually(
		u.working, "calls are answered", func() (bool, error) { return u.load.reads.Load() >= reached, nil },
	); err != nil {
		close(u.stop)
		t.Fatal(u.clients.Wait())
	}
}

// roll replaces all nodes one by one.
func (u *upgrade) roll(t *testing.T, program string) {
	t.Helper()
	for _, role := range upgradeOrder {
		for n, node := range u.nodes[role] {
			u.settle(t)
			node.stop(t)
			node.path = program
			node.start(t)
			t.Logf("%s %d is %s after %d reads", role, n+1, filepath.Base(program), u.load.reads.Load())
		}
	}
}

// reload has the NATS server read its configuration again.
func (u *upgrade) reload(t *testing.T) {
	t.Helper()
	const reloaded = "Reloaded server configuration"
	before := strings.Count(u.nats[0].log(), reloaded)
	if err := u.nats[0].cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := eventually(u.working, "NATS has reloaded its configuration", func() (bool, error) {
		return strings.Count(u.nats[0].log(), reloaded) > before, nil
	}); err != nil {
		t.Fatalf("%v: %s", err, u.nats[0].log())
	}
}

// end stops the load, and checks that no call has failed and the journal has every event.
func (u *upgrade) end(ctx context.Context, t *testing.T) {
	t.Helper()
	u.settle(t)
	close(u.stop)
	if err := u.clients.Wait(); err != nil {
		t.Fatal(err)
	}
	u.checkJournal(ctx, t)
}

// All nodes are upgraded one by one from an earlier version, go back, and are upgraded again, under load: no keyed
// command and no read fails, each deposit takes effect once, and every read has its writes.
func TestUpgrade_RollingUnderLoadFailsNoCall(t *testing.T) {
	t.Parallel()
	before := earlierProgram(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	u := startUpgrade(ctx, t, before, "")
	for _, program := range []string{binary, before, binary} {
		u.roll(t, program)
	}
	u.end(ctx, t)
}

// A platform whose NATS has users is upgraded as docs/playbooks.md describes, under load: no call fails, and no node
// lacks a permission. It goes back, and is upgraded again, if the earlier version's users have the same permissions.
func TestUpgrade_WithNATSUsersFailsNoCall(t *testing.T) {
	t.Parallel()
	before := earlierProgram(t)
	if err := exec.CommandContext(t.Context(), before, "nats-config", "--help").Run(); err != nil {
		t.Skip("that version has no users of NATS")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	u := startUpgrade(ctx, t, before, before)
	users := func() string {
		text, err := os.ReadFile(filepath.Join(u.users, access.UsersFile))
		if err != nil {
			t.Fatal(err)
		}
		_, sections, _ := strings.Cut(string(text), "authorization {") // without the comment before it
		return sections
	}
	earlier := users()
	headgate(t, "nats-config", u.users)
	u.reload(t)
	programs := []string{binary}
	if users() == earlier {
		programs = append(programs, before, binary)
	}
	for _, program := range programs {
		printed(t, program, "nats-setup", "--config", filepath.Join(u.dir, "setup.yaml"))
		u.roll(t, program)
	}
	u.end(ctx, t)
}
