package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/common/expfmt"
	prommodel "github.com/prometheus/common/model"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
)

// runnerCommand measures one runner by its number of tenants: triggers of the past, a restart with
// a trigger for each tenant, and the cost of idle tenants. Each trigger starts a workflow of one
// webhook, which this process answers.
type runnerCommand struct {
	Tenants []int         `default:"10,100,1000,10000" help:"Numbers of tenants."`
	Events  int           `default:"5" help:"Events of the past per tenant; each starts a workflow."`
	Single  int           `default:"200" help:"Events that are sent one after the other to an idle runner."`
	Settle  time.Duration `default:"45s" help:"Wait until the runner is idle."`
	Idle    time.Duration `default:"20s" help:"Time over which idle CPU is measured."`
	Plots   string        `help:"Write the plot into this directory." type:"path"`
}

// runnerRow is the measurement of one number of tenants.
type runnerRow struct {
	past, listens, restart time.Duration
	restartCPU             time.Duration
	single                 []time.Duration
	resident, peak         int64 // bytes
	goroutines, files      int
	cpu                    float64 // of a core
	consumers              map[string]int
}

// runnerModel has one workflow, which calls a webhook for each note.
const runnerModel = document + `workflows:
  tell:
    on: note.written
    from: beginning
    steps: [{name: tell, webhook: {url: "'%s'", body: {owner: event.owner}}}]
`

// Run prints a table.
func (c *runnerCommand) Run(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	fmt.Printf(
		"| tenants | past triggers | all took effect | restart: listens | restart: a trigger of each tenant took " +
			"effect (CPU) | one trigger while idle: p50 / p99 | resident | goroutines | descriptors | consumers of " +
			"EVENTS, WORK | CPU idle |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
	)
	series := map[string][]float64{}
	var names []string
	for _, n := range c.Tenants {
		row, err := c.measure(ctx, n)
		if err != nil {
			return fmt.Errorf("%d tenants: %w", n, err)
		}
		slices.Sort(row.single)
		fmt.Printf(
			"| %d | %d | %.1f s | %.1f s | %.1f s (%.1f s) | %.1f / %.1f ms | %d MiB (peak %d) | %d | %d | %d, %d | "+
				"%.1f %% |\n",
			n, n*c.Events, row.past.Seconds(), row.listens.Seconds(), row.restart.Seconds(), row.restartCPU.Seconds(),
			milliseconds(row.single[len(row.single)/2]), milliseconds(row.single[len(row.single)*99/100]),
			row.resident>>20, row.peak>>20, row.goroutines, row.files,
			row.consumers[streams.Events], row.consumers[streams.Work], 100*row.cpu,
		)
		names = append(names, fmt.Sprint(n))
		series["resident, MiB"] = append(series["resident, MiB"], float64(row.resident)/(1<<20))
		series["restart and a trigger of each, ms"] = append(series["restart and a trigger of each, ms"],
			milliseconds(row.restart))
		series["one trigger while idle, p50 ms"] = append(series["one trigger while idle, p50 ms"],
			milliseconds(row.single[len(row.single)/2]))
	}
	if c.Plots == "" {
		return nil
	}
	return plotSeries(filepath.Join(c.Plots, "runner.png"), "A runner, by its number of tenants", names, series)
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// receiver answers webhooks and counts their idempotency keys.
type receiver struct {
	mu      sync.Mutex
	keys    map[string]bool
	changed chan struct{}
}

// ServeHTTP answers a webhook.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.keys[req.Header.Get("Idempotency-Key")] = true
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

// until returns once n webhooks have been received.
func (r *receiver) until(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("webhooks are missing after ten minutes"))
	defer cancel()
	for {
		r.mu.Lock()
		count, changed := len(r.keys), r.changed
		r.mu.Unlock()
		if count > n {
			return fmt.Errorf("%d webhooks with different keys, want %d", count, n)
		}
		if count == n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d webhooks: %w", count, n, context.Cause(ctx))
		}
	}
}

// runnerWorld is NATS, the receiver, and the settings of a runner.
type runnerWorld struct {
	js       jetstream.JetStream
	program  string
	dir      string
	addr     string
	receiver *receiver
}

// start starts the runner and returns once it listens.
func (w *runnerWorld) start(ctx context.Context) (*process, error) {
	return startProcess(ctx, filepath.Join(w.dir, "runner.log"), w.addr, w.program, "serve", "runner", "--config",
		filepath.Join(w.dir, "runner.yaml"))
}

// write writes the settings and the model for a number of tenants.
func (w *runnerWorld) write(nats, hook string, tenants int) error {
	var names []string
	for i := range tenants {
		names = append(names, benchTenant(i))
	}
	list, err := json.Marshal(names)
	if err != nil {
		return err
	}
	config := fmt.Sprintf(`nats: {url: "%s"}
log: warn
tenants: %s
model: "%s"
runner:
  server: {listen: "%s"}
  credential: "%s"
  webhooks: {allow: ["127.0.0.1"], private: true, plain: true}
`, nats, list, filepath.Join(w.dir, "notes.yaml"), w.addr, filepath.Join(w.dir, "token"))
	for name, text := range map[string]string{
		"notes.yaml": fmt.Sprintf(runnerModel, hook), "token": "unused", "runner.yaml": config,
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// measure runs a new runner over events of the past, and starts it again.
func (c *runnerCommand) measure(ctx context.Context, tenants int) (row *runnerRow, err error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s, err := server.NewServer(&server.Options{
		Host:      "127.0.0.1",
		Port:      server.RANDOM_PORT,
		JetStream: true,
		StoreDir:  filepath.Join(dir, "nats"),
		NoSigs:    true,
		NoLog:     true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(startTimeout) {
		return nil, errors.New("NATS does not start")
	}
	conn, err := natsclient.Connect(s.ClientURL(), "bench")
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	w := &runnerWorld{
		dir:      dir,
		program:  filepath.Join(dir, "headgate"),
		receiver: &receiver{keys: map[string]bool{}, changed: make(chan struct{})},
	}
	hook := httptest.NewServer(w.receiver)
	defer hook.Close()
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	if out, err := exec.CommandContext(
		ctx, "go", "-C", root, "build", "-o", w.program, "./cmd/headgate",
	).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build headgate: %w: %s", err, out)
	}
	if w.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	if w.js, err = jetstream.New(conn); err != nil {
		return nil, err
	}
	if err := setup.Ensure(ctx, w.js, 1); err != nil {
		return nil, err
	}
	if err := w.write(s.ClientURL(), hook.URL, tenants); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "writing %d events of %d tenants\n", tenants*c.Events, tenants)
	if err := writeEvents(ctx, w.js, tenants, 0, c.Events); err != nil {
		return nil, err
	}
	row = &runnerRow{consumers: map[string]int{}}
	return row, c.fill(ctx, row, w, tenants)
}

// fill measures the runner's first run, its restart, and its cost when idle.
func (c *runnerCommand) fill(ctx context.Context, row *runnerRow, w *runnerWorld, tenants int) error {
	began := time.Now()
	first, err := w.start(ctx)
	if err != nil {
		return err
	}
	err = w.receiver.until(ctx, tenants*c.Events)
	row.past = time.Since(began)
	if err == nil {
		row.peak, err = first.peak()
	}
	first.stop()
	if err != nil {
		return err
	}
	if err := writeEvents(ctx, w.js, tenants, c.Events, c.Events+1); err != nil {
		return err
	}
	began = time.Now()
	second, err := w.start(ctx)
	if err != nil {
		return err
	}
	defer second.stop()
	row.listens = time.Since(began)
	if err := w.receiver.until(ctx, tenants*(c.Events+1)); err != nil {
		return err
	}
	row.restart = time.Since(began)
	if row.restartCPU, err = second.cpu(); err != nil {
		return err
	}
	lasting(ctx, c.Settle)
	if err := c.idle(ctx, row, w, second); err != nil {
		return err
	}
	for n := range c.Single {
		began := time.Now()
		if err := writeEvent(ctx, w.js, n*7%tenants, c.Events+1+n); err != nil {
			return err
		}
		if err := w.receiver.until(ctx, tenants*(c.Events+1)+n+1); err != nil {
			return err
		}
		row.single = append(row.single, time.Since(began))
	}
	return nil
}

// idle measures the cost of the runner without events.
func (c *runnerCommand) idle(ctx context.Context, row *runnerRow, w *runnerWorld, p *process) error {
	before, err := p.cpu()
	if err != nil {
		return err
	}
	began := time.Now()
	lasting(ctx, c.Idle)
	after, err := p.cpu()
	if err != nil {
		return err
	}
	row.cpu = (after - before).Seconds() / time.Since(began).Seconds()
	if row.resident, err = p.resident(); err != nil {
		return err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		return err
	}
	row.files = len(files)
	for _, name := range []string{streams.Events, streams.Work} {
		stream, err := w.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		row.consumers[name] = stream.CachedInfo().State.Consumers
	}
	row.goroutines, err = goroutinesOf(ctx, w.addr)
	return err
}

// goroutinesOf reads the number of goroutines from a process's metrics.
func goroutinesOf(ctx context.Context, addr string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	parser := expfmt.NewTextParser(prommodel.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		return 0, err
	}
	family := families["go_goroutines"]
	if family == nil {
		return 0, errors.New("the metrics have no go_goroutines")
	}
	return int(family.GetMetric()[0].GetGauge().GetValue()), nil
}
