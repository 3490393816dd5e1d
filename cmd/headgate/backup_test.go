package main_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/headgate/headgate/contextkit"
)

// rehearsed is the rehearsal of a disaster: transfers, of which each waits for a second, while a
// backup is taken.
type rehearsed struct {
	*cluster

	money api
	ctx   context.Context
	sent  atomic.Int64 // transfers requested
	acked atomic.Int64
}

// useModel starts the roles again, on a model whose transfers wait between debit and credit.
func (c *cluster) useModel(t *testing.T) {
	t.Helper()
	c.stop(t)
	text := headgate(t, "model", "show") + "\n"
	const credit = "      - name: credit\n"
	if !strings.Contains(text, credit) {
		t.Fatal("the model has no step credit")
	}
	path := c.write(t, "model.yaml", strings.Replace(text, credit, "      - {name: cool, wait: \"'1s'\"}\n"+credit, 1))
	settings, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, filepath.Base(c.config), string(settings)+"\nmodel: "+path+"\n")
	c.startRoles(t, "aggregate", "projection", "gateway", "runner")
}

func (c *cluster) startRoles(t *testing.T, roles ...string) {
	t.Helper()
	for _, role := range roles {
		c.roles[role].start(t)
	}
}

// transfer requests the transfer with a number. Every fourth has no receiver, and is undone:
// "nowhere" is opened after the restore, "void" never.
func (r *rehearsed) transfer(ctx context.Context, n int) (replayed bool, err error) {
	random := rand.New(rand.NewPCG(uint64(n), 3))
	from, to := random.IntN(pools), fmt.Sprintf("pool-%d", random.IntN(pools))
	switch {
	case n%8 == 0:
		to = "void"
	case n%4 == 0, to == fmt.Sprintf("pool-%d", from):
		to = "nowhere"
	}
	mover := &walk{api: r.money, acked: &r.acked}
	id := fmt.Sprintf("t%d", n)
	res, err := mover.submit(
		ctx,
		request("transfer", id, "request", id,
			map[string]any{"from": fmt.Sprintf("pool-%d", from), "to": to, "amount": 1 + random.IntN(500)}),
	)
	return res.GetReplayed(), err
}

// wallets returns the balances, and transfers the states.
func (r *rehearsed) wallets(t *testing.T) (total int64) {
	t.Helper()
	all, err := every(r.ctx, r.money.queries, "wallets", "wallet_id", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all {
		total += int64(row["balance"].(float64))
	}
	return total
}

func (r *rehearsed) states() (map[string]int, error) {
	all, err := every(r.ctx, r.money.queries, "transfers", "transfer_id", "")
	states := map[string]int{}
	for _, row := range all {
		states[row["state"].(string)]++
	}
	return states, err
}

// transfersPerSecond bounds the load during a backup.
const transfersPerSecond = 50

func TestBackup_UnderLoadRestoredElsewhereLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	underLoad(t)
	c := startCluster(t, 1, nil)
	c.useModel(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	r := &rehearsed{cluster: c, ctx: contextkit.TenantContext(ctx, parseTenant(t, "globex"))}
	_, r.money = dial(
		t, c.gateway,
		strings.TrimPrefix(c.token(t, "globex", "command.submit", "query.read", "aggregate.read", "workflow.read"),
			"Bearer "),
	)
	mover := &walk{api: r.money, acked: &r.acked}
	open := func(id string, amount int) {
		t.Helper()
		if _, err := mover.submit(
			r.ctx, request("wallet", id, "open", id+"-open", map[string]any{"owner": "pool"}),
		); err != nil {
			t.Fatal(err)
		}
		if amount == 0 {
			return
		}
		if _, err := mover.submit(
			r.ctx, request("wallet", id, "deposit", id+"-deposit", map[string]any{"amount": amount}),
		); err != nil {
			t.Fatal(err)
		}
	}
	for n := range pools {
		open(fmt.Sprintf("pool-%d", n), poolAmount)
	}

	stop := make(chan struct{})
	load, loadCtx := errgroup.WithContext(r.ctx)
	const movers = 4
	// Without a bound, the backup of a slow machine has thousands of transfers, which are requested again below.
	pace := rate.NewLimiter(transfersPerSecond, movers)
	for m := range movers {
		load.Go(func() error {
			for n := m; ; n += movers {
				select {
				case <-stop:
					return nil
				default:
				}
				if err := pace.Wait(loadCtx); err != nil {
					return err
				}
				if _, err := r.transfer(loadCtx, n); err != nil {
					return err
				}
				r.sent.Add(1)
			}
		})
	}
	reach := func(sent int64) {
		t.Helper()
		if err := eventually(
			loadCtx, "transfers are requested", func() (bool, error) { return r.sent.Load() >= sent, nil },
		); err != nil {
			t.Fatal(err)
		}
	}
	reach(200)
	before := r.sent.Load()
	dir := filepath.Join(c.dir, "backup")
	t.Log(headgate(t, "backup", dir, "--config", c.config))
	reach(r.sent.Load() + 50) // what the backup does not have
	close(stop)
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	last := int(r.sent.Load()) + movers
	t.Logf("%d transfers before the backup, %d in total", before, r.sent.Load())

	// The disaster: everything ends, and NATS's disk is lost. The views stay, ahead of the backup.
	for _, role := range []string{"runner", "gateway", "aggregate", "projection"} {
		c.roles[role].kill()
	}
	c.nats[0].kill()
	conf, err := os.ReadFile(c.nats[0].args[1])
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, filepath.Base(c.nats[0].args[1]), strings.Replace(string(conf), "/nats-0\"", "/nats-restored\"", 1))
	c.nats[0].start(t)
	t.Log(headgate(t, "restore", dir, "--config", c.config))
	if text, err := exec.CommandContext(
		ctx, binary, "restore", dir, "--config", c.config,
	).CombinedOutput(); err == nil {
		t.Errorf("restored over existing data without --replace: %s", text)
	}

	// A transfer that was rejected before could be accepted now: an undone one must not continue.
	c.startRoles(t, "aggregate", "projection", "gateway")
	open("nowhere", 0)
	c.startRoles(t, "runner")

	// Clients that were not answered, or do not know what the backup has, send all again.
	replayed := 0
	for n := range last {
		again, err := r.transfer(r.ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		if again {
			replayed++
		}
	}
	if int64(replayed) < before {
		t.Errorf("%d of %d transfers from before the backup are found by their key", replayed, before)
	}
	waiting, cancelWait := context.WithTimeout(r.ctx, 3*time.Minute)
	defer cancelWait()
	var states map[string]int
	if err := eventually(waiting, "transfers end", func() (bool, error) {
		var err error
		states, err = r.states()
		return err == nil && states["requested"] == 0 && states["completed"]+states["failed"] == last, err
	}); err != nil {
		t.Fatalf("%v: %v of %d\n%s", err, states, last, c.roles["runner"].log())
	}
	if total := r.wallets(t); total != pools*poolAmount {
		t.Errorf("total balance %d, want %d (transfers: %v)", total, pools*poolAmount, states)
	}
	if states["failed"] == 0 || states["completed"] == 0 {
		t.Errorf("transfers %v", states)
	}
	t.Logf("%d of %d found by their key; then %v", replayed, last, states)
	c.checkJournal(ctx, t)
	c.stop(t)
}

func TestBackup_OfDevIsRestoredIntoAnotherDirectory(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	p := start(t, data, nil)
	_, acme := dial(t, p.gateway, p.tokens["ACME"])
	ctx := contextkit.TenantContext(t.Context(), parseTenant(t, "acme"))
	if _, err := acme.commands.Submit(
		ctx, request("wallet", "a", "open", "k1", map[string]any{"owner": "ada"}),
	); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "b")
	if text, err := exec.CommandContext(
		t.Context(), binary, "backup", dir, "--data", data,
	).CombinedOutput(); err == nil || !strings.Contains(string(text), "stop 'headgate dev' first") {
		t.Errorf("backup while dev runs: %v: %s", err, text)
	}
	p.stop(t)
	headgate(t, "backup", dir, "--data", data)
	headgate(t, "restore", dir, "--check")
	other := filepath.Join(t.TempDir(), "other")
	headgate(t, "restore", dir, "--data", other)
	again := start(t, other, nil)
	_, acme = dial(t, again.gateway, again.tokens["ACME"])
	res, err := acme.commands.Submit(ctx, request("wallet", "a", "open", "k1", map[string]any{"owner": "ada"}))
	if err != nil || !res.GetReplayed() {
		t.Errorf("replay under the key: %v, %v", res, err)
	}
	found, err := rows(ctx, acme.queries, "wallets", "", res.GetPosition())
	if err != nil || len(found) != 1 {
		t.Errorf("view: %v (%v)", found, err)
	}
	again.stop(t)
}
