package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

const (
	soakTenants = 30
	// soakRate is each tenant's calls per second.
	soakRate = 12
	// soakDeadline is the deadline of a call.
	soakDeadline = 2 * time.Second
	// soakIdle is the number of idle connections.
	soakIdle = 10_000
)

// TestSoak_OthersAreNotDisturbed calls a gateway with three nodes at a steady rate, for thirty tenants. One node has
// each fault in turn; then NATS restarts, a tenant calls at twenty times its rate, clients retry immediately, and
// there are idle connections and slow readers. HEADGATE_SOAK is the length of a phase, such as 10s; without it the
// test is skipped.
func TestSoak_OthersAreNotDisturbed(t *testing.T) {
	phase, err := time.ParseDuration(os.Getenv("HEADGATE_SOAK"))
	if err != nil {
		t.Skip("HEADGATE_SOAK is the length of a phase, such as 10s")
	}
	ctx := t.Context()
	a, err := startArena(ctx, "headgate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	s := &soak{arena: a, phase: phase, home: map[string]string{}}
	for n := range 3 {
		one, err := newNode(ctx, fmt.Sprintf("p%d", n))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = one.stop() })
		s.nodes = append(s.nodes, one)
	}
	listed := make([]string, len(s.nodes))
	for i, n := range s.nodes {
		listed[i] = fmt.Sprintf(`{id: %s, kind: projection, endpoint: "%s"}`, n.name, n.addr)
	}
	if s.gateway, err = a.startHeadgate(ctx, prepared{
		tenant: "*",
		rights: []string{"query.read"},
		nodes:  strings.Join(listed, ", "),
		limits: fmt.Sprintf("{rate: %d, burst: %d, concurrent: 256}", 5*soakRate, 10*soakRate),
	}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		conn, err := grpc.NewClient("passthrough:///"+a.addrs["headgate-grpc"],
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.conns = append(s.conns, conn)
	}
	s.run(t)
}

// soak is the load and its results.
type soak struct {
	*arena
	phase   time.Duration
	nodes   []*node
	gateway *process
	conns   []*grpc.ClientConn
	home    map[string]string // tenant → the node that serves it without faults

	faulty  atomic.Pointer[string] // the node that has a fault, or had it last
	current atomic.Pointer[period]
	periods []*period
}

// period is the measurements during one condition, such as a fault.
type period struct {
	name  string
	began time.Time
	took  time.Duration

	mu                     sync.Mutex
	others, affected       *hdrhistogram.Histogram
	failed, failedAffected int
	shed                   int // refused because of the tenant's own rate
	calls                  int
	attempts               int64
	atFaulty               []int64 // attempts at the faulty node, by half-second
	memory, goroutines     float64
	errors                 map[string]int
	ended                  map[string]int // streams, by how they ended
	gap                    time.Duration  // longest silence of a stream of a healthy node
	recovered              time.Duration  // from the period's begin to the last failed call
	lastFailure            time.Time
}

func (s *soak) run(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	first := s.nodes[0].name
	s.faulty.Store(&first)
	s.begin("warm-up")
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for n := range soakTenants {
		clients.Go(func() { s.tenant(ctx, fmt.Sprintf("tenant-%d", n)) })
	}
	for n := range soakTenants {
		clients.Go(func() { s.watcher(ctx, fmt.Sprintf("tenant-%d", n)) })
	}
	clients.Go(func() { s.count(ctx) })
	s.hold(t, "warm-up", nil)
	quiet := s.hold(t, "quiet", nil)

	for _, f := range []fault{slow, hanging, refusing, reset, failing, dying} {
		s.hold(t, f.String(), func() {
			if err := s.nodes[0].set(ctx, f); err != nil {
				t.Fatal(err)
			}
		})
		s.hold(t, "after "+f.String(), func() {
			if err := s.nodes[0].set(ctx, healthy); err != nil {
				t.Fatal(err)
			}
		})
	}
	s.hold(t, "NATS restarts", func() {
		if err := s.restartNATS(ctx); err != nil {
			t.Fatal(err)
		}
	})
	s.hold(t, "after NATS restarts", nil)
	var end func(*period)
	// At twenty times its rate limit.
	noisy := s.hold(t, "a noisy tenant", func() { end = s.crowd(t, crowd{Tenant: "noisy", Rate: 20 * 5 * soakRate}) })
	end(noisy)
	s.hold(t, "after a noisy tenant", nil)
	storm := s.hold(t, "a retry storm", func() {
		if err := s.nodes[0].set(ctx, failing); err != nil {
			t.Fatal(err)
		}
		end = s.crowd(t, crowd{Tenant: s.affected(), Callers: 20})
	})
	end(storm)
	s.hold(t, "after a retry storm", func() {
		if err := s.nodes[0].set(ctx, healthy); err != nil {
			t.Fatal(err)
		}
	})
	s.begin("settling") // opening connections is not measured
	idle := s.idle(t, soakIdle)
	s.hold(t, "settling", nil)
	s.hold(t, "10,000 idle connections", nil)
	s.begin("settling") // closing connections is not measured
	for _, conn := range idle {
		_ = conn.Close()
	}
	s.hold(t, "settling", nil)
	s.hold(t, "after 10,000 idle connections", nil)
	readers, leave := context.WithCancel(ctx)
	for range 50 {
		clients.Go(func() { s.slowReader(readers) })
	}
	s.hold(t, "settling", nil) // until the buffers between readers and nodes are full
	s.hold(t, "slow readers", nil)
	leave()
	last := s.hold(t, "quiet again", nil)
	stop()
	clients.Wait()
	s.report(t, quiet, last)
}

// begin starts a period.
func (s *soak) begin(name string) *period {
	p := &period{
		name:     name,
		began:    time.Now(),
		errors:   map[string]int{},
		ended:    map[string]int{},
		others:   newHistogram(),
		affected: newHistogram(),
	}
	s.current.Store(p)
	return p
}

// hold begins a condition, and measures for the length of a phase.
func (s *soak) hold(t *testing.T, name string, begin func()) *period {
	t.Helper()
	p := s.begin(name)
	if begin != nil {
		begin()
	}
	timer := time.NewTimer(time.Until(p.began.Add(s.phase)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
	p.took = time.Since(p.began)
	var err error
	if p.memory, p.goroutines, err = s.gauges(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.name != "warm-up" && p.name != "settling" {
		s.periods = append(s.periods, p)
	}
	t.Logf(
		"%-26s %6d calls, others p99 %6.1f ms, affected p99 %7.1f ms, failed %d others, %d affected %v, %.0f MiB, "+
			"%.0f goroutines",
		p.name, p.calls, ms(p.others, 99), ms(p.affected, 99), p.failed, p.failedAffected, p.errors, p.memory/(1<<20),
		p.goroutines,
	)
	return p
}

// tenant calls at a tenant's rate.
func (s *soak) tenant(ctx context.Context, name string) {
	conn := s.conns[rand.IntN(len(s.conns))]
	atRate(ctx, soakRate, func(due time.Time) {
		p := s.current.Load()
		node, err := query(ctx, conn, s.token, name)
		s.record(p, name, node, time.Since(due), err)
	})
}

// atRate calls do perSecond times per second, concurrently, with at most 64 calls in flight.
func atRate(ctx context.Context, perSecond int, do func(due time.Time)) {
	slots := make(chan struct{}, 64)
	var calls sync.WaitGroup
	defer calls.Wait()
	step := time.Second / time.Duration(perSecond)
	for due := time.Now().Add(rand.N(step)); ; due = due.Add(step) {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		calls.Go(func() {
			defer func() { <-slots }()
			do(due)
		})
	}
}

// query calls Query, and returns the node that answered.
func query(ctx context.Context, conn *grpc.ClientConn, token, tenant string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, soakDeadline)
	defer cancel()
	request, err := proto.Marshal(&projectionv1.QueryRequest{TenantId: tenant, View: "one"})
	if err != nil {
		return "", err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, contextkit.HeaderTenantID, tenant)
	var out []byte
	var header metadata.MD
	err = conn.Invoke(ctx, gatewayv1connect.QueryServiceQueryProcedure, request, &out, grpc.ForceCodecV2(raw{}),
		experimental.AcceptCompressors(plainName), grpc.Header(&header))
	if values := header.Get(headerNode); len(values) > 0 {
		return values[0], err
	}
	return "", err
}

func (s *soak) record(p *period, tenant, node string, took time.Duration, err error) {
	if err != nil {
		p = s.current.Load() // a condition that has begun since is the cause
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if node != "" && (p.name == "warm-up" || p.name == "quiet") {
		s.home[tenant] = node
	}
	affected := s.home[tenant] == *s.faulty.Load()
	p.calls++
	if err != nil {
		if strings.Contains(err.Error(), "context canceled") {
			return // the run has ended
		}
		text := err.Error()
		p.errors[text[:min(len(text), 90)]]++
		p.lastFailure = time.Now()
		if affected {
			p.failedAffected++
		} else {
			p.failed++
		}
		return
	}
	to := p.others
	if affected {
		to = p.affected
	}
	_ = to.RecordValue(max(took.Microseconds(), 1)) // within the range
}

// count records the calls that reach the nodes, every half second.
func (s *soak) count(ctx context.Context) {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	last := make([]int64, len(s.nodes))
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p := s.current.Load()
		p.mu.Lock()
		for i, node := range s.nodes {
			now := node.attempts.Load()
			p.attempts += now - last[i]
			if i == 0 {
				p.atFaulty = append(p.atFaulty, now-last[i])
			}
			last[i] = now
		}
		p.mu.Unlock()
	}
}

// gauges returns the gateway's resident bytes and its goroutines.
func (s *soak) gauges(ctx context.Context) (memory, goroutines float64, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.gateway.admin, nil)
	if err != nil {
		return 0, 0, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, 0, err
	}
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close() // it has been read
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case strings.HasPrefix(line, "process_resident_memory_bytes"):
			memory, _ = strconv.ParseFloat(fields[len(fields)-1], 64)
		case strings.HasPrefix(line, "go_goroutines"):
			goroutines, _ = strconv.ParseFloat(fields[len(fields)-1], 64)
		}
	}
	return memory, goroutines, err
}

// restartNATS stops the server and starts it again.
func (s *soak) restartNATS(ctx context.Context) error {
	s.procs[0].stop()
	_, port, _ := strings.Cut(s.addrs["nats"], ":")
	again, err := startProcess(ctx, filepath.Join(s.dir, "nats-again.log"), s.addrs["nats"], s.paths["nats-server"],
		"-a", "127.0.0.1", "-p", port, "-js", "-sd", filepath.Join(s.dir, "nats"))
	if err == nil {
		s.procs[0] = again
	}
	return err
}

// affected returns a tenant of the node with the fault.
func (s *soak) affected() (tenant string) {
	p := s.current.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	for one, node := range s.home {
		if node == *s.faulty.Load() {
			tenant = one
		}
	}
	return tenant
}

// idle opens connections that are idle after one call.
func (s *soak) idle(t *testing.T, count int) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, 0, count)
	for range count {
		conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), "tcp", s.addrs["headgate"])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "GET /health HTTP/1.1\r\nHost: gateway\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	return conns
}

// watcher watches a tenant's view, and again when the stream ends.
func (s *soak) watcher(ctx context.Context, tenant string) {
	for ctx.Err() == nil {
		code := s.watch(ctx, tenant)
		p := s.current.Load()
		p.mu.Lock()
		if ctx.Err() == nil && code != "" {
			p.ended[code]++
		}
		p.mu.Unlock()
		timer := time.NewTimer(trickleEvery + rand.N(trickleEvery))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watch watches for some seconds, so that streams return to a node that has recovered, or until the stream ends. It
// returns the code of a stream that has ended by itself, else "".
func (s *soak) watch(ctx context.Context, tenant string) string {
	ctx, cancel := context.WithCancel(
		metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+s.token, contextkit.HeaderTenantID, tenant),
	)
	defer cancel()
	defer time.AfterFunc(2*time.Second+rand.N(2*time.Second), cancel).Stop()
	ending := func(err error) string {
		if ctx.Err() != nil {
			return ""
		}
		return status.Code(err).String()
	}
	stream, err := s.conns[rand.IntN(len(s.conns))].NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		gatewayv1connect.QueryServiceWatchProcedure)
	if err != nil {
		return ending(err)
	}
	if err := stream.SendMsg(&projectionv1.WatchRequest{View: "one"}); err != nil {
		return ending(err)
	}
	_ = stream.CloseSend() // RecvMsg returns the error
	last := time.Now()
	for {
		if err := stream.RecvMsg(&projectionv1.WatchResponse{}); err != nil {
			return ending(err)
		}
		p := s.current.Load()
		p.mu.Lock()
		if s.home[tenant] != *s.faulty.Load() {
			p.gap = max(p.gap, time.Since(last))
		}
		p.mu.Unlock()
		last = time.Now()
	}
}

// slowReader watches the view with endless changes, and reads 256 bytes every 200 ms.
func (s *soak) slowReader(ctx context.Context) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addrs["headgate"])
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	_ = conn.(*net.TCPConn).SetReadBuffer(4096)
	if _, err := fmt.Fprintf(
		conn,
		"GET /v1/watch/"+viewFlood+" HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n%s: tenant-%d\r\n\r\n",
		s.token, contextkit.HeaderTenantID, rand.IntN(soakTenants),
	); err != nil {
		return
	}
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	for buffer := make([]byte, 256); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if _, err := conn.Read(buffer); err != nil {
			return
		}
	}
}

// maxAmplification is the greatest ratio of attempts to calls in a period: a call may begin another attempt when its
// budget is almost used up (docs/guarantees.md).
const maxAmplification = 1.1

// report prints the table, draws the plot and reports broken rules.
func (s *soak) report(t *testing.T, quiet, end *period) {
	t.Helper()
	var table strings.Builder
	fmt.Fprintf(
		&table,
		"| | calls/s | attempts per call | elsewhere p50 / p99 | of quiet p99 | affected p50 / p99 | failed "+
			"elsewhere, affected | refused | streams ended | last failure after | "+
			"most calls at the node in half a second | MiB | goroutines |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
	)
	for i, p := range s.periods {
		most := p.most()
		p.recovered = 0
		if !p.lastFailure.IsZero() {
			p.recovered = p.lastFailure.Sub(p.began)
		}
		amplified := float64(p.attempts) / max(float64(p.calls), 1)
		fmt.Fprintf(
			&table,
			"| %s | %.0f | %.2f | %.1f / %.1f ms | %.2f | %.1f / %.1f ms | %d, %d | %d | %s | %.1f s | %d | %.0f | "+
				"%.0f |\n",
			p.name, float64(p.calls)/p.took.Seconds(), amplified,
			ms(p.others, 50), ms(p.others, 99), ms(p.others, 99)/ms(s.quietAround(i), 99), ms(p.affected, 50),
			ms(p.affected, 99), p.failed, p.failedAffected, p.shed, endings(p.ended), p.recovered.Seconds(), most,
			p.memory/(1<<20), p.goroutines,
		)
		if amplified > maxAmplification {
			t.Errorf("%s: %.2f attempts per call, want at most %.2f", p.name, amplified, maxAmplification)
		}
		if p.failed > 0 {
			t.Errorf("%s: %d calls of tenants on healthy nodes failed: %v", p.name, p.failed, p.errors)
		}
		if p.gap > 20*trickleEvery {
			t.Errorf("%s: a stream of a healthy node was silent for %v", p.name, p.gap)
		}
		if strings.HasPrefix(p.name, "after ") && p.recovered > recoverWithin {
			t.Errorf("%s: calls still failed after %v", p.name, p.recovered)
		}
		if usual := quiet.most(); strings.HasPrefix(p.name, "after ") && most > 2*usual {
			t.Errorf("%s: the node received %d calls in half a second, want at most twice the usual %d", p.name, most,
				usual)
		}
	}
	if end.goroutines > 1.2*quiet.goroutines+50 {
		t.Errorf("%.0f goroutines at the end, %.0f at the beginning", end.goroutines, quiet.goroutines)
	}
	for _, p := range s.periods {
		if strings.Contains(p.name, "idle") { // their memory is returned to the system gradually
			break
		}
		if p.memory > 1.5*quiet.memory {
			t.Errorf("%s: %.0f MiB, %.0f at the beginning", p.name, p.memory/(1<<20), quiet.memory/(1<<20))
		}
	}
	fmt.Println(table.String())
	if dir := os.Getenv("HEADGATE_PLOTS"); dir != "" {
		names, values := make([]string, len(s.periods)), map[string][]float64{
			"elsewhere": nil, "on the node with the fault": nil,
		}
		for i, p := range s.periods {
			names[i] = p.name
			values["elsewhere"] = append(values["elsewhere"], ms(p.others, 99))
			values["on the node with the fault"] = append(values["on the node with the fault"], ms(p.affected, 99))
		}
		if err := plotSeries(
			filepath.Join(dir, "soak.png"), "p99 of tenants while one of three nodes fails, ms", names, values,
		); err != nil {
			t.Error(err)
		}
	}
}

// quietAround returns the latencies of unaffected tenants in the last quiet period before a period and the first one
// after it, because the machine's speed drifts. A quiet period is compared with the first one.
func (s *soak) quietAround(i int) *hdrhistogram.Histogram {
	quiet := func(p *period) bool { return strings.HasPrefix(p.name, "quiet") || strings.HasPrefix(p.name, "after ") }
	around := newHistogram()
	if quiet(s.periods[i]) {
		around.Merge(s.periods[0].others)
		return around
	}
	for before := i; before >= 0; before-- {
		if quiet(s.periods[before]) {
			around.Merge(s.periods[before].others)
			break
		}
	}
	for _, after := range s.periods[i:] {
		if quiet(after) {
			around.Merge(after.others)
			break
		}
	}
	return around
}

// endings formats the number of streams by the code with which they ended.
func endings(ended map[string]int) string {
	if len(ended) == 0 {
		return "–"
	}
	parts := make([]string, 0, len(ended))
	for _, code := range slices.Sorted(maps.Keys(ended)) {
		parts = append(parts, fmt.Sprintf("%d %s", ended[code], code))
	}
	return strings.Join(parts, ", ")
}

// recoverWithin is how long calls may fail after a node has recovered.
const recoverWithin = 5 * time.Second

func (p *period) most() (most int64) {
	for _, n := range p.atFaulty {
		most = max(most, n)
	}
	return most
}
