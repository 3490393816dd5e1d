//go:build linux

package main_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/headgate/headgate/internal/disk/disktest"
)

// depositor deposits 1 under a new key with each command, and knows what was acknowledged.
type depositor struct {
	caller

	acknowledged int
}

func (d *depositor) deposit(ctx context.Context) (status int, text string) {
	d.t.Helper()
	status, text = d.post(ctx, "/v1/commands/wallet/a/deposit",
		fmt.Sprintf(`{"payload":{"amount":1},"idempotencyKey":"d%d"}`, d.acknowledged))
	if status == http.StatusOK {
		d.acknowledged++
	}
	return status, text
}

// fillsUp deposits until the disk, which is full except for the rest of the files' blocks,
// takes no event, and checks what is answered then.
func (d *depositor) fillsUp(ctx context.Context) {
	d.t.Helper()
	var status int
	var text string
	for status = http.StatusOK; status == http.StatusOK; {
		status, text = d.deposit(ctx)
	}
	if err := eventually(ctx, "commands are rejected for the full disk", func() (bool, error) {
		status, text = d.deposit(ctx)
		return strings.Contains(text, "disk"), fmt.Errorf("%d %s", status, text)
	}); err != nil {
		d.t.Fatal(err)
	}
	if status != http.StatusServiceUnavailable || !strings.Contains(text, "google.rpc.RetryInfo") {
		d.t.Errorf("%d %s: want UNAVAILABLE with RetryInfo", status, text)
	}
	if status, text := d.post(ctx, "/v1/query/wallets", `{}`); status != http.StatusOK ||
		!strings.Contains(text, "Ada") {
		d.t.Errorf("query with a full disk: %d %s", status, text)
	}
}

// goesOn waits until commands are accepted, and checks that each acknowledged one has taken effect
// once.
func (d *depositor) goesOn(ctx context.Context) {
	d.t.Helper()
	var text string
	if err := eventually(ctx, "commands succeed again", func() (bool, error) {
		var status int
		status, text = d.deposit(ctx)
		return status == http.StatusOK, fmt.Errorf("%d %s", status, text)
	}); err != nil {
		d.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(text, `"position":"`)
	position, _, _ := strings.Cut(rest, `"`)
	want := fmt.Sprintf(`"balance":%d,`, d.acknowledged)
	if err := eventually(ctx, "the views continue", func() (bool, error) {
		status, text := d.post(ctx, "/v1/query/wallets", fmt.Sprintf(`{"minPosition":%q}`, position))
		return status == http.StatusOK && strings.Contains(text, want), fmt.Errorf("%d %s: want %s", status, text, want)
	}); err != nil {
		d.t.Error(err)
	}
}

// open opens the wallet and waits for its row.
func (d *depositor) open(ctx context.Context) {
	d.t.Helper()
	if status, text := d.post(
		ctx, "/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`,
	); status != http.StatusOK {
		d.t.Fatalf("%d %s", status, text)
	}
	if err := eventually(ctx, "the view contains the wallet", func() (bool, error) {
		_, text := d.post(ctx, "/v1/query/wallets", `{}`)
		return strings.Contains(text, "Ada"), nil
	}); err != nil {
		d.t.Fatal(err)
	}
}

// A full disk stops the commands of `dev`, which reports it, and nothing else; it recovers by itself
// as often as there is room again.
func TestDisk_DevContinuesOnceThereIsRoom(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	dir := disktest.Small(t, 96<<20)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	p := start(t, filepath.Join(dir, "data"), nil)
	d := &depositor{caller: caller{t, p.gateway, "Bearer " + p.tokens["ACME"]}}
	d.open(ctx)
	for range 2 {
		free := disktest.Fill(t, dir)
		d.fillsUp(ctx)
		if status, body := ready(ctx, t, p.aggregate); status != http.StatusServiceUnavailable ||
			!strings.Contains(body.Reason, "disk") {
			t.Errorf("aggregate: %d %+v, want not ready for the disk", status, body)
		}
		if err := eventually(ctx, "the gateway is degraded for the disk", func() (bool, error) {
			status, body := ready(ctx, t, p.gateway)
			return status == http.StatusOK &&
				strings.Contains(body.Degraded["aggregate"], "disk"), fmt.Errorf("%d %+v", status, body)
		}); err != nil {
			t.Error(err)
		}
		free()
		d.goesOn(ctx)
	}
	p.stop(t)
	if log := p.stderr.String(); strings.Count(log, "the disk of the journal refuses writes") > 4 ||
		!strings.Contains(log, "no space left on device") {
		t.Errorf("want a line for each change, with the cause:\n%s", log)
	}
}

// Under concurrent commands and batches a disk that is full again and again loses nothing that was
// acknowledged, and nothing has its effect twice.
func TestDisk_NothingIsLostOrDoubledUnderLoad(t *testing.T) {
	t.Parallel()
	underLoad(t)
	for name, flags := range map[string][]string{"synced": nil, "lazy": {"--lazy-sync"}} {
		t.Run(name, func(t *testing.T) {
			dir := disktest.Small(t, 96<<20)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			p := start(t, filepath.Join(dir, "data"), nil, flags...)
			acme := caller{t, p.gateway, "Bearer " + p.tokens["ACME"]}
			const wallets = 12
			pace := rate.NewLimiter(200, wallets) // of all attempts: most are rejected while the disk is full
			for n := range wallets {
				if status, text := acme.post(
					ctx, fmt.Sprintf("/v1/commands/wallet/w%d/open", n), fmt.Sprintf(`{"payload":{"owner":"o%d"}}`, n),
				); status != http.StatusOK {
					t.Fatalf("%d %s", status, text)
				}
			}
			full, ended := make(chan struct{}), make(chan struct{})
			var clients sync.WaitGroup
			var stored [wallets]int
			for n := range wallets {
				clients.Go(func() {
					for i := 0; ; i++ {
						path, body, cents := fmt.Sprintf("/v1/commands/wallet/w%d/deposit",
							n), fmt.Sprintf(`{"payload":{"amount":1},"idempotencyKey":"k%d-%d"}`, n, i), 1
						if n%3 == 0 { // a batch of three events, all or none
							one := func(m int) string {
								return fmt.Sprintf(
									`{"aggregateType":"wallet","aggregateId":"w%d","command":"deposit","payload":{"amount":1},"idempotencyKey":"k%d-%d-%d"}`,
									n, n, i, m,
								)
							}
							path, cents = "/v1/commands:batch", 3
							body = fmt.Sprintf(`{"commands":[%s,%s,%s]}`, one(0), one(1), one(2))
						}
						for { // the same command under the same key, until it is known to be stored
							if pace.Wait(ctx) != nil {
								return
							}
							status, text := acme.post(ctx, path, body)
							if status == http.StatusOK && !strings.Contains(text, `"error"`) {
								break
							}
						}
						stored[n] += cents
						select {
						case <-ended:
							return
						default:
						}
					}
				})
			}
			go func() {
				defer close(ended)
				for range 3 {
					free := disktest.Fill(t, dir)
					err := eventually(ctx, "commands are rejected", func() (bool, error) {
						status, body := ready(ctx, t, p.aggregate)
						return status == http.StatusServiceUnavailable && strings.Contains(body.Reason, "disk"), nil
					})
					free()
					if err == nil {
						err = eventually(ctx, "the aggregate is ready", func() (bool, error) {
							status, _ := ready(ctx, t, p.aggregate)
							return status == http.StatusOK, nil
						})
					}
					if err != nil {
						t.Error(err)
					}
				}
				close(full)
			}()
			<-full
			clients.Wait()
			for n, want := range stored {
				if err := eventually(ctx, "the view contains every deposit once", func() (bool, error) {
					_, text := acme.post(ctx, "/v1/query/wallets",
						fmt.Sprintf(`{"query":{"filter":"wallet_id = \"w%d\""}}`, n))
					return strings.Contains(text,
						fmt.Sprintf(`"balance":%d,`, want)), fmt.Errorf("%s: want %d", text, want)
				}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// When the data directory of `dev` is removed, it rejects commands with the reason, and no empty
// journal takes the place of the old one.
func TestDisk_DevNoticesThatItsDirectoryIsGone(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := filepath.Join(t.TempDir(), "data")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p := start(t, data, nil)
	d := &depositor{caller: caller{t, p.gateway, "Bearer " + p.tokens["ACME"]}}
	d.open(ctx)
	if err := os.Rename(data, data+"-moved"); err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "commands are rejected", func() (bool, error) {
		status, text := d.deposit(ctx)
		return status == http.StatusServiceUnavailable &&
			strings.Contains(text, "directory"), fmt.Errorf("%d %s", status, text)
	}); err != nil {
		t.Fatal(err)
	}
	if err := eventually(ctx, "the projection is not ready", func() (bool, error) {
		status, body := ready(ctx, t, p.projection)
		return status == http.StatusServiceUnavailable &&
			strings.Contains(body.Reason, "directory"), fmt.Errorf("%d %+v", status, body)
	}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(data); !os.IsNotExist(err) {
		t.Errorf("got %v, want no file in place of the directory", err)
	}
	if err := os.Rename(data+"-moved", data); err != nil {
		t.Fatal(err)
	}
	d.goesOn(ctx)
	p.stop(t)
	if log := p.stderr.String(); !strings.Contains(log, data) || !strings.Contains(log, "disappeared") {
		t.Errorf("want lines that name the directory:\n%s", log)
	}
}

// On a separate NATS server, whose disk is full, every role continues without a restart once the
// server has been restarted with room.
func TestDisk_RolesGoOnAfterTheServersRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every role as a process; other tests cover this under the race detector")
	}
	if _, err := natsBinary(); err != nil {
		t.Fatal(err)
	}
	dir := disktest.Small(t, 96<<20)
	t.Run("everything on one disk", func(t *testing.T) {
		t.Setenv("TMPDIR", dir)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		c := startCluster(t, 1, nil)
		d := &depositor{caller: caller{t, c.gateway, c.token(t, "acme", "command.submit", "query.read")}}
		d.open(ctx)
		free := disktest.Fill(t, dir)
		d.fillsUp(ctx)
		aggregate := c.roles["aggregate"].listens(t)
		if status, body := ready(ctx, t, aggregate); status != http.StatusServiceUnavailable ||
			!strings.Contains(body.Reason, "disk") {
			t.Errorf("aggregate: %d %+v, want not ready for the disk", status, body)
		}
		_, text, err := get(ctx, aggregate+"/metrics")
		if err != nil || !strings.Contains(text, `headgate_stream_writable{process="aggregate",stream="EVENTS"} 0`) {
			t.Errorf("%v: the metrics do not report that EVENTS stores nothing", err)
		}
		if log := c.roles["aggregate"].log(); strings.Count(log, "the journal stores nothing") != 1 {
			t.Errorf("want one line of the change:\n%s", log)
		}
		free()
		c.nats[0].kill()
		c.nats[0].start(t)
		d.goesOn(ctx)
	})
}

// Of three NATS servers, the disk of one, and then of all, is full: nothing that was acknowledged is
// lost or has its effect twice, and everything continues once there is room and the servers have been
// restarted.
func TestDisk_FullDisksOfAClusterLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	underLoad(t)
	var dirs []string
	for range 3 {
		dirs = append(dirs, disktest.Small(t, 64<<20))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	c := startCluster(t, 3, nil, dirs...)
	d := &depositor{caller: caller{t, c.gateway, c.token(t, "acme", "command.submit", "query.read")}}
	d.open(ctx)
	for range 10 {
		d.deposit(ctx)
	}
	var free []func()
	for n, dir := range dirs {
		free = append(free, disktest.Fill(t, dir))
		if n == 0 { // two of three have room
			for range 20 {
				d.deposit(ctx)
			}
			d.goesOn(ctx)
		}
	}
	if err := eventually(ctx, "commands are rejected", func() (bool, error) {
		status, _ := d.deposit(ctx)
		return status != http.StatusOK, nil
	}); err != nil {
		t.Fatal(err)
	}
	if status, text := d.post(ctx, "/v1/query/wallets", `{}`); status != http.StatusOK ||
		!strings.Contains(text, "Ada") {
		t.Errorf("query while all disks are full: %d %s", status, text)
	}
	for n := range c.nats {
		free[n]()
	}
	for _, server := range c.nats {
		server.kill()
		server.start(t)
	}
	d.goesOn(ctx)
	c.checkJournal(ctx, t)
}
