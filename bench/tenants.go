package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/setup"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
	"github.com/headgate/headgate/services/projection"
	"github.com/headgate/headgate/services/projection/sqlite"
)

// tenantsCommand measures the cost of idle tenants at a projection node.
type tenantsCommand struct {
	Tenants []int         `default:"10,100,1000,10000" help:"Numbers of tenants."`
	Events  int           `default:"100" help:"Events per tenant."`
	Settle  time.Duration `default:"45s" help:"Wait until the node is idle: it closes files after 30 s."`
	Idle    time.Duration `default:"20s" help:"Time for which its CPU is measured."`
	Plots   string        `help:"Write the plot into this directory." type:"path"`
}

// tenantsRow contains the results for a number of tenants.
type tenantsRow struct {
	build, listens, ready time.Duration
	startCPU              time.Duration // until all tenants are ready
	resident, peak        int64         // bytes
	goroutines, files     int
	cpu                   float64 // of a core
	consumers             int
	logs                  int // write-ahead logs that have not been copied
}

// Run prints a table.
func (c *tenantsCommand) Run(ctx context.Context) error {
	ctx = contextkit.PlatformContext(ctx)
	fmt.Printf(
		"| tenants | events | first build | start: listens | start: all tenants ready (CPU) | resident | goroutines " +
			"| descriptors | logs left | consumers | CPU idle |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
	)
	series := map[string][]float64{}
	var names []string
	for _, n := range c.Tenants {
		row, err := c.measure(ctx, n)
		if err != nil {
			return err
		}
		fmt.Printf(
			"| %d | %d | %.1f s | %.1f s | %.1f s (%.1f s) | %d MiB (peak %d) | %d | %d | %d | %d | %.1f %% |\n", n,
			n*c.Events,
			row.build.Seconds(), row.listens.Seconds(), row.ready.Seconds(), row.startCPU.Seconds(), row.resident>>20,
			row.peak>>20, row.goroutines, row.files, row.logs, row.consumers, 100*row.cpu,
		)
		names = append(names, fmt.Sprint(n))
		series["resident, MiB"] = append(series["resident, MiB"], float64(row.resident)/(1<<20))
		series["start until all are ready, ms"] = append(series["start until all are ready, ms"],
			float64(row.ready.Milliseconds()))
		series["goroutines"] = append(series["goroutines"], float64(row.goroutines))
	}
	if c.Plots == "" {
		return nil
	}
	return plotSeries(filepath.Join(c.Plots, "tenants.png"), "A projection node, by its number of idle tenants", names,
		series)
}

// measure runs a node over a new journal, and again over the views that it has built.
func (c *tenantsCommand) measure(ctx context.Context, tenants int) (row *tenantsRow, err error) {
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
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	if err := setup.Ensure(ctx, js, 1); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "writing %d events of %d tenants\n", tenants*c.Events, tenants)
	if err := writeEvents(ctx, js, tenants, 0, c.Events); err != nil {
		return nil, err
	}
	row = &tenantsRow{}
	first, err := startTenantNode(ctx, s.ClientURL(), dir, tenants)
	if err != nil {
		return nil, err
	}
	row.build = first.ready
	if row.peak, err = first.peak(); err != nil {
		return nil, err
	}
	first.stop()
	second, err := startTenantNode(ctx, s.ClientURL(), dir, tenants)
	if err != nil {
		return nil, err
	}
	defer second.stop()
	row.listens, row.ready = second.listens, second.ready
	if row.startCPU, err = second.cpu(); err != nil {
		return nil, err
	}
	lasting(ctx, c.Settle)
	before, err := second.cpu()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	lasting(ctx, c.Idle)
	after, err := second.cpu()
	if err != nil {
		return nil, err
	}
	row.cpu = (after - before).Seconds() / time.Since(began).Seconds()
	if row.resident, err = second.resident(); err != nil {
		return nil, err
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", second.cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	logs, err := filepath.Glob(filepath.Join(dir, "views", "*-wal"))
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, streams.Events)
	if err != nil {
		return nil, err
	}
	row.files, row.logs, row.consumers = len(files), len(logs), stream.CachedInfo().State.Consumers
	row.goroutines, err = second.goroutines()
	return row, err
}

func benchTenant(n int) string { return fmt.Sprintf("t%05d", n) }

// writeEvents writes the tenants' events from first to before last, one of each tenant in turn.
func writeEvents(ctx context.Context, js jetstream.JetStream, tenants, first, last int) error {
	const pending = 1000
	for n := first; n < last; n++ {
		for i := range tenants {
			if err := sendEvent(ctx, js, i, n); err != nil {
				return err
			}
			if js.PublishAsyncPending() >= pending {
				if err := published(ctx, js); err != nil {
					return err
				}
			}
		}
	}
	return published(ctx, js)
}

// writeEvent writes one event.
func writeEvent(ctx context.Context, js jetstream.JetStream, tenant, n int) error {
	return errors.Join(sendEvent(ctx, js, tenant, n), published(ctx, js))
}

// published waits until every event that was sent is stored.
func published(ctx context.Context, js jetstream.JetStream) error {
	select {
	case <-js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sendEvent sends event n of a tenant.
func sendEvent(ctx context.Context, js jetstream.JetStream, i, n int) error {
	tenant, err := contextkit.ParseTenantID(benchTenant(i))
	if err != nil {
		return err
	}
	msg := &nats.Msg{
		Subject: streams.EventSubject(tenant, "note", fmt.Sprintf("n%d", n)),
		Header:  nats.Header{},
		Data:    fmt.Appendf(nil, `{"owner":"o%d","amount":%d}`, n%10, n),
	}
	if err := contextkit.InjectNATS(contextkit.TenantContext(ctx, tenant), msg.Header); err != nil {
		return err
	}
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": fmt.Sprintf("%s-%d", benchTenant(i), n), "ce-type": "written",
		"ce-time":      "2026-01-01T00:00:00Z",
		"content-type": "application/json", "ce-aggregateversion": "1", "ce-aggregatetype": "note",
		"ce-aggregateid": fmt.Sprintf("n%d", n),
	} {
		msg.Header.Set(name, value)
	}
	_, err = js.PublishMsgAsync(msg)
	return err
}

// tenantNode is a projection node in a separate process.
type tenantNode struct {
	process

	in             io.WriteCloser
	out            *bufio.Reader
	listens, ready time.Duration
}

func startTenantNode(ctx context.Context, url, dir string, tenants int) (*tenantNode, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "tenant-node", "--url", url, "--dir", filepath.Join(dir, "views"),
		"--tenants", fmt.Sprint(tenants))
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = startTimeout
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	n := &tenantNode{process: process{cmd: cmd}, in: in, out: bufio.NewReader(out)}
	for _, at := range []*time.Duration{&n.listens, &n.ready} {
		if _, err := n.out.ReadString('\n'); err != nil {
			n.stop()
			return nil, fmt.Errorf("the node has ended: %w", err)
		}
		*at = time.Since(began)
	}
	return n, nil
}

// goroutines returns the node's number of goroutines.
func (n *tenantNode) goroutines() (count int, err error) {
	if _, err := io.WriteString(n.in, "goroutines\n"); err != nil {
		return 0, err
	}
	line, err := n.out.ReadString('\n')
	if err != nil {
		return 0, err
	}
	return count, json.Unmarshal([]byte(line), &count)
}

// tenantNodeCommand runs the process of a [tenantNode]. It writes a line when calls can be served, a line when every
// tenant's views are complete, and, for each line that it reads, a line with its number of goroutines.
type tenantNodeCommand struct {
	URL     string
	Dir     string
	Tenants int
}

// Run runs the node until ctx or its input ends.
func (c *tenantNodeCommand) Run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(contextkit.PlatformContext(ctx))
	defer cancel()
	conn, err := natsclient.Connect(c.URL, "node")
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	models, err := model.Open(ctx, source)
	if err != nil {
		return err
	}
	var names []string
	for i := range c.Tenants {
		names = append(names, benchTenant(i))
	}
	tenants, err := rpc.ParseTenants(names)
	if err != nil {
		return err
	}
	service, err := projection.New(ctx, projection.Config{}, js, models, tenants, sqlite.In(c.Dir), nil,
		zerolog.New(os.Stderr).Level(zerolog.WarnLevel))
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	fmt.Println("listens")
	for _, tenant := range tenants.All() {
		for service.Ready(ctx, tenant) != nil && ctx.Err() == nil {
			lasting(ctx, 10*time.Millisecond)
		}
	}
	fmt.Println("ready")
	go func() {
		defer cancel()
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			if strings.TrimSpace(lines.Text()) != "" {
				fmt.Println(runtime.NumGoroutine())
			}
		}
	}()
	return errors.Join(<-done, service.Close())
}

// lasting returns after a measured time, or when ctx ends.
func lasting(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
