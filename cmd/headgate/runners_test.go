package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// beforeVariable names the program of an earlier version, or its tag or commit, see [earlierProgram].
const beforeVariable = "HEADGATE_BEFORE"

// bank moves money between wallets of many tenants by workflows.
type bank struct {
	c       *cluster
	js      jetstream.JetStream
	api     api
	tenants []contextkit.TenantID
	sent    []atomic.Int64 // transfers of each tenant
	acked   atomic.Int64
	stop    chan struct{}
	clients *errgroup.Group
}

// openBank creates tenants with two wallets each.
func openBank(ctx context.Context, t *testing.T, c *cluster, tenants int) *bank {
	t.Helper()
	conn := c.connect(t)
	b := &bank{c: c, sent: make([]atomic.Int64, tenants), stop: make(chan struct{})}
	var err error
	if b.js, err = jetstream.New(conn); err != nil {
		t.Fatal(err)
	}
	created, err := kv.Open[fleet.Tenant](ctx, b.js, streams.BucketTenants)
	if err != nil {
		t.Fatal(err)
	}
	_, b.api = dial(
		t, c.gateway,
		strings.TrimPrefix(c.token(t, "*", "command.submit", "query.read", "aggregate.read", "workflow.read"),
			"Bearer "),
	)
	for n := range tenants {
		tenant := parseTenant(t, fmt.Sprintf("bank-%02d", n))
		b.tenants = append(b.tenants, tenant)
		if _, err := created.Put(contextkit.PlatformContext(ctx), tenant.String(), fleet.Tenant{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	// As fast as they are answered, the clients would take the machine from the runners.
	mover := &walk{api: b.api, acked: &b.acked, pace: rate.NewLimiter(60, 3)}
	for _, tenant := range b.tenants {
		ctx := contextkit.TenantContext(ctx, tenant)
		for _, wallet := range []string{"a", "b"} {
			req := request("wallet", wallet, "open", wallet, map[string]any{"owner": "bank"})
			req.TenantId = tenant.String()
			if err := eventually(ctx, "the tenant is served", func() (bool, error) {
				_, err := b.api.commands.Submit(ctx, req)
				return err == nil, err
			}); err != nil {
				t.Fatal(err)
			}
		}
		req := request("wallet", "a", "deposit", "deposit", map[string]any{"amount": 1_000_000})
		req.TenantId = tenant.String()
		if _, err := mover.submit(ctx, req); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

// move moves one unit from a to b of tenants at random until close.
func (b *bank) move(ctx context.Context) {
	var clientCtx context.Context
	b.clients, clientCtx = errgroup.WithContext(ctx)
	mover := &walk{api: b.api, acked: &b.acked}
	for client := range 3 {
		b.clients.Go(func() error {
			random := rand.New(rand.NewPCG(uint64(client), 5))
			for {
				select {
				case <-b.stop:
					return nil
				default:
				}
				n := random.IntN(len(b.tenants))
				id := fmt.Sprintf("t%d-%d", client, b.sent[n].Add(1))
				req := request("transfer", id, "request", id, map[string]any{"from": "a", "to": "b", "amount": 1})
				req.TenantId = b.tenants[n].String()
				if _, err := mover.submit(contextkit.TenantContext(clientCtx, b.tenants[n]), req); err != nil {
					return err
				}
			}
		})
	}
}

// close waits until every transfer has ended and checks that each took effect once.
func (b *bank) close(ctx context.Context, t *testing.T, logs func() string) {
	t.Helper()
	close(b.stop)
	if err := b.clients.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, logs())
	}
	ctx, cancel := context.WithTimeout(ctx, 4*time.Minute)
	defer cancel()
	var all int64
	for n, tenant := range b.tenants {
		sent := b.sent[n].Load()
		all += sent
		ctx := contextkit.TenantContext(ctx, tenant)
		if err := eventually(ctx, "the transfers of "+tenant.String()+" end", func() (bool, error) {
			rows, err := every(ctx, b.api.queries, "transfers", "transfer_id", "")
			if err != nil {
				return false, err
			}
			done := int64(0)
			for _, row := range rows {
				if row["state"] == "completed" {
					done++
				}
			}
			if done != sent {
				return false, fmt.Errorf("%d of %d transfers completed", done, sent)
			}
			return true, nil
		}); err != nil {
			t.Fatalf("%v\n%s", err, logs())
		}
		rows, err := every(ctx, b.api.queries, "wallets", "wallet_id", "")
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			want := float64(sent)
			if row["wallet_id"] == "a" {
				want = 1_000_000 - want
			}
			if row["balance"] != want {
				t.Errorf("%s: balance of wallet %v is %v, want %v", tenant, row["wallet_id"], row["balance"], want)
			}
		}
	}
	stream, err := b.js.Stream(ctx, streams.DeadLetters)
	if err != nil {
		t.Fatal(err)
	}
	if letters := stream.CachedInfo().State.Msgs; letters != 0 {
		t.Errorf("%d dead letters", letters)
	}
	b.c.checkJournal(ctx, t)
	t.Logf("%d transfers, each once", all)
}

// runner returns one more runner of the cluster, by the program at a path.
func (c *cluster) runner(t *testing.T, path, id string) *process {
	t.Helper()
	text, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	head, section, _ := strings.Cut(string(text), "\nrunner:\n")
	_, section, _ = strings.Cut(section, "\n") // the server's address
	config := c.write(t, id+".yaml",
		fmt.Sprintf("%s\nrunner:\n  node: {id: %s}\n  server: {listen: \"127.0.0.1:0\"}\n%s", head, id, section))
	return &process{path: path, ready: "listens on", args: []string{"serve", "runner", "--config", config}}
}

// settle waits until more transfers have been sent.
func (b *bank) settle(ctx context.Context, t *testing.T, more int64) {
	t.Helper()
	reached := b.acked.Load() + more
	if err := eventually(
		ctx, "commands succeed", func() (bool, error) { return b.acked.Load() >= reached, nil },
	); err != nil {
		t.Fatal(err)
	}
}

func TestRunners_EachTriggerTakesEffectOnceWhateverHappensToThem(t *testing.T) {
	t.Parallel()
	underLoad(t)
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	runners := []*process{c.roles["runner"], c.runner(t, binary, "runner-b"), c.runner(t, binary, "runner-c")}
	for _, r := range runners[1:] {
		r.start(t)
	}
	b := openBank(ctx, t, c, 12)
	b.move(ctx)
	logs := func() string {
		return "a:\n" + runners[0].log() + "b:\n" + runners[1].log() + "c:\n" + runners[2].log()
	}
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	faults := []string{"kill", "freeze", "leave", "cut", "restart NATS", "kill"}
	for n, fault := range faults {
		b.settle(ctx, t, 60)
		r := runners[n%len(runners)]
		t.Logf("%s of runner %d after %d commands", fault, n%len(runners), b.acked.Load())
		switch fault {
		case "kill":
			r.kill()
			b.settle(ctx, t, 60)
			r.start(t)
		case "freeze": // for longer than others believe in its lease
			if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			<-time.After(8*time.Second + rand.N(time.Second))
			if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		case "leave":
			r.stop(t)
			b.settle(ctx, t, 60)
			r.start(t)
		case "cut":
			c.wires[0].cut()
		case "restart NATS":
			c.nats[0].kill()
			c.nats[0].start(t)
		}
		b.settle(ctx, t, int64(20+random.IntN(40)))
	}
	b.close(ctx, t, logs)
	for _, stream := range []string{streams.Events, streams.Work} {
		handle, err := b.js.Stream(ctx, stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := handle.CachedInfo().State.Consumers; stream == streams.Work && n > 0 {
			t.Errorf("%d consumers on WORK", n)
		}
	}
	for _, r := range runners[1:] {
		r.stop(t)
	}
	c.stop(t)
}

func TestRunners_AreUpgradedOneByOne(t *testing.T) {
	t.Parallel()
	before := earlierProgram(t)
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c.roles["runner"].stop(t)
	conn := c.connect(t)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	// The cluster's own runner has decided already: take that back, as if there never was one.
	decisions, err := js.Stream(ctx, streams.BucketStream(streams.BucketRunner))
	if err != nil {
		t.Fatal(err)
	}
	if err := decisions.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	ids := []string{"runner-a", "runner-b", "runner-c"}
	runners := make([]*process, len(ids))
	for n, id := range ids {
		runners[n] = c.runner(t, before, id)
		runners[n].start(t)
	}
	logs := func() string {
		return "a:\n" + runners[0].log() + "b:\n" + runners[1].log() + "c:\n" + runners[2].log()
	}
	b := openBank(ctx, t, c, 8)
	b.move(ctx)
	b.settle(ctx, t, 150)
	consumers := func() int {
		stream, err := js.Stream(ctx, streams.Events)
		if err != nil {
			t.Fatal(err)
		}
		count := 0
		names := stream.ConsumerNames(ctx)
		for name := range names.Name() {
			if strings.HasPrefix(name, "runner-bank-") {
				count++
			}
		}
		return count
	}
	if n := consumers(); n != len(b.tenants) {
		t.Errorf("%d consumers of earlier versions for %d tenants", n, len(b.tenants))
	}
	byCursors := func() bool {
		_, err := kv.Read(ctx, js, streams.BucketRunner, "cursors")
		return err == nil
	}
	// One is upgraded, and goes back; then one after the other, the last one by a kill.
	for step, path := range []string{binary, before, binary, binary, binary} {
		n := []int{0, 0, 0, 1, 2}[step]
		if step == 4 {
			runners[n].kill()
		} else {
			runners[n].stop(t)
		}
		runners[n] = c.runner(t, path, ids[n])
		runners[n].start(t)
		if step < 4 && byCursors() {
			t.Fatalf("step %d: triggers are read by cursors while an earlier version runs", step)
		}
		b.settle(ctx, t, 150)
	}
	if err := eventually(
		ctx, "triggers are read by cursors", func() (bool, error) { return byCursors(), nil },
	); err != nil {
		t.Fatalf("%v\n%s", err, logs())
	}
	b.settle(ctx, t, 150)
	// An earlier version, started by mistake, works on nothing.
	late := c.runner(t, before, "runner-late")
	late.start(t)
	b.settle(ctx, t, 150)
	b.close(ctx, t, logs)
	if strings.Contains(late.log(), "tried again") {
		t.Errorf("the earlier version works:\n%s", late.log())
	}
	for _, r := range append(runners, late) {
		r.stop(t)
	}
	for _, role := range []string{"gateway", "aggregate", "projection"} {
		c.roles[role].stop(t)
	}
}
