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
	"github.com/nats-io/nats.go"
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

// startUpgrade starts the platform with an earlier program on NATS servers, and with users of NATS that usersBy makes;
// "": without.
func startUpgrade(ctx context.Context, t *testing.T, before, usersBy string, natsServers int) *upgrade {
	t.Helper()
	u := &upgrade{
		cluster: startClusterOf(t, before, usersBy, natsServers, nil),
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

// reload has the NATS servers read their configuration again, one by one.
func (u *upgrade) reload(t *testing.T) {
	t.Helper()
	const reloaded, failed = "Reloaded server configuration", "Failed to reload server configuration"
	for _, server := range u.nats {
		u.settle(t)
		before := strings.Count(server.log(), reloaded)
		if err := server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := eventually(u.working, "NATS has reloaded its configuration", func() (bool, error) {
			if log := server.log(); strings.Contains(log, failed) {
				t.Fatal(log)
			}
			return strings.Count(server.log(), reloaded) > before, nil
		}); err != nil {
			t.Fatalf("%v: %s", err, server.log())
		}
	}
}

// replace replaces a text in the settings of all nodes, or in the configuration of all NATS servers.
func (u *upgrade) replace(t *testing.T, pattern, text, by string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(u.dir, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(paths), err)
	}
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		u.write(t, filepath.Base(path), strings.ReplaceAll(string(content), text, by))
	}
}

// connectBy gives all nodes other settings of NATS, which count from their next start.
func (u *upgrade) connectBy(t *testing.T, bus string) {
	t.Helper()
	u.replace(t, "*.yaml", u.bus, bus)
	u.bus = bus
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
	u := startUpgrade(ctx, t, before, "", 1)
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
	u := startUpgrade(ctx, t, before, before, 1)
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

// A platform of an earlier version without users of NATS is upgraded and given users, and goes back to nodes of the
// earlier version and NATS without users, by the steps of docs/serve.md, under load: no NATS server is restarted, and
// no call fails.
func TestUpgrade_GivesThePlatformUsersAndTakesThem(t *testing.T) {
	for _, servers := range []int{1, 3} {
		t.Run(fmt.Sprint(servers), func(t *testing.T) {
			t.Parallel()
			before := earlierProgram(t)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			u := startUpgrade(ctx, t, before, "", servers)
			u.users = filepath.Join(u.dir, "users")
			headgate(t, "nats-config", "--open", u.users)
			password, err := os.ReadFile(filepath.Join(u.users, access.OpenPasswordFile))
			if err != nil {
				t.Fatal(err)
			}
			without := u.bus
			open := strings.ReplaceAll(without, "nats://",
				"nats://"+access.OpenUser+":"+strings.TrimSpace(string(password))+"@")
			with := strings.Replace(without, "}",
				fmt.Sprintf(", nkey: %q}", filepath.Join(u.users, "nkeys", "{role}.nk")), 1)

			u.connectBy(t, open)
			u.roll(t, binary)
			const include = "\ninclude \"users/users.conf\"\n"
			u.replace(t, "nats-*.conf", "\njetstream", include+"jetstream")
			u.reload(t)
			setup := u.write(t, "setup.yaml", "nats: "+with+"\n")
			headgate(t, "nats-setup", "--config", setup)
			u.connectBy(t, with)
			u.roll(t, binary)
			headgate(t, "nats-config", u.users)
			u.reload(t)
			for _, url := range []string{without, open} {
				if conn, err := nats.Connect(natsURL(url), nats.MaxReconnects(0)); err == nil {
					conn.Close()
					t.Error("NATS accepts a process without a separate user")
				}
			}

			headgate(t, "nats-config", "--open", u.users)
			u.reload(t)
			u.connectBy(t, open)
			u.roll(t, binary) // gateways with users do not see nodes of a version without them
			u.replace(t, "nats-*.conf", include, "\n")
			u.reload(t)
			u.connectBy(t, without)
			u.roll(t, before)
			u.users = ""
			u.end(ctx, t)
		})
	}
}

// natsURL returns the URL in settings of NATS.
func natsURL(bus string) string {
	_, url, _ := strings.Cut(bus, `url: "`)
	url, _, _ = strings.Cut(url, `"`)
	return url
}
