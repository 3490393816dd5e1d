package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/nats-io/nats-server/v2/server"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/natstest"
)

// closedPort returns an address of this machine at which nothing listens.
func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// role is a role that runs in this process.
type role struct {
	main, grpc, admin, nats string
	lines                   chan string // of its output and its log
	ended                   chan error
	stop                    context.CancelFunc
}

// startRole runs a role on a NATS server that may not be running yet.
func startRole(t *testing.T, name string) *role {
	t.Helper()
	return startRoleWith(t, name, "")
}

// ownAdmin are the settings of NATS that give the projection an address for operators instead.
const ownAdmin = "admin"

// startRoleWith is startRole with further settings of NATS.
func startRoleWith(t *testing.T, name, further string) *role {
	t.Helper()
	dir := t.TempDir()
	r := &role{
		main:  closedPort(t),
		grpc:  closedPort(t),
		admin: closedPort(t),
		nats:  closedPort(t),
		lines: make(chan string, 256),
		ended: make(chan error, 1),
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	issuer, err := OpenDevIssuer(dir)
	if err != nil {
		t.Fatal(err)
	}
	public, err := issuer.PublicKeys()
	if err != nil {
		t.Fatal(err)
	}
	admin := "" // of the projection, which has one in one test
	if further == ownAdmin {
		admin, further = r.admin, ""
	}
	keys := write("keys.json", string(public))
	settings := write("headgate.yaml", fmt.Sprintf(`
nats: {url: "nats://%s"%s}
log: warn
gateway: {server: {listen: %q}, grpc: %q, admin: %q, auth: {issuer: i, audience: a, keys: %q}}
aggregate: {server: {listen: %q}, grpc: %q}
projection: {server: {listen: %q}, grpc: %q, admin: %q, data: %q}
runner: {server: {listen: %q}, grpc: %q, credential: %q}
control: {server: {listen: %q}, grpc: %q}
`, r.nats, further, r.main, r.grpc, r.admin, keys, r.main, r.grpc, r.main, r.grpc, admin, filepath.Join(dir, "views"),
		r.main, r.grpc, write("token", "t"), r.main, r.grpc))
	read, out := io.Pipe()
	go func() {
		for scanner := bufio.NewScanner(read); scanner.Scan(); {
			r.lines <- scanner.Text()
		}
		close(r.lines)
	}()
	plan, err := Open(t.Context(), contextkit.Kind(name), settings, Options{Logs: out})
	if err != nil {
		t.Fatal(err)
	}
	plan.streamsTimeout = time.Second
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() {
		r.ended <- plan.Run(ctx, out)
		_ = out.Close()
	}()
	t.Cleanup(stop)
	return r
}

// until reads lines up to one that contains text.
func (r *role) until(t *testing.T, text string) string {
	t.Helper()
	deadline := time.After(time.Minute)
	var read []string
	for {
		select {
		case line, open := <-r.lines:
			if !open {
				t.Fatalf("the process ended before the line %q: %v", text, <-r.ended)
			}
			if strings.Contains(line, text) {
				return line
			}
			read = append(read, line)
		case <-deadline:
			t.Fatalf("there is no line %q:\n%s", text, strings.Join(read, "\n"))
		}
	}
}

// end stops the role and returns its error.
func (r *role) end(t *testing.T) error {
	t.Helper()
	r.stop()
	go func() {
		for range r.lines {
		}
	}()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the process does not end")
		return nil
	}
}

func (r *role) get(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// client returns a gRPC client.
func client(t *testing.T, addr string) *connect.Client {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	t.Cleanup(transport.CloseIdleConnections)
	return contextkit.NewClient(connecthttp.NewTransport(transport, "http://"+addr, connecthttp.WithGRPC()))
}

// health returns the status of the gRPC health service.
func health(t *testing.T, addr string) healthv1.HealthCheckResponse_ServingStatus {
	t.Helper()
	var res healthv1.HealthCheckResponse
	spec := connect.Spec{Procedure: healthv1.Health_Check_FullMethodName, StreamType: connect.StreamTypeUnary}
	if err := client(t, addr).CallUnary(
		contextkit.PlatformContext(t.Context()), spec, &healthv1.HealthCheckRequest{}, &res,
	); err != nil {
		t.Fatal(err)
	}
	return res.GetStatus()
}

// startNATS starts the NATS server that the role waits for.
func (r *role) startNATS(t *testing.T, options server.Options) *server.Server {
	t.Helper()
	addr, err := net.ResolveTCPAddr("tcp", r.nats)
	if err != nil {
		t.Fatal(err)
	}
	options.Host, options.Port = addr.IP.String(), addr.Port
	return natstest.Server(t, &options)
}

func TestStart_RolesWaitForNATS(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gateway", "aggregate", "projection", "runner", "control"} {
		t.Run(name, func(t *testing.T) {
			r := startRole(t, name)
			line := r.until(t, "the start waits")
			for _, want := range []string{
				`"level":"warn"`, "no servers available", "again_in_ms", "NATS does not accept a connection",
			} {
				if !strings.Contains(line, want) {
					t.Errorf("%s: want %s", line, want)
				}
			}
			addrs := []string{r.main, r.grpc}
			if name == "gateway" {
				addrs = append(addrs, r.admin)
			}
			for _, addr := range addrs {
				if status, text := r.get(t, addr, "/health"); status != http.StatusOK ||
					!strings.Contains(text, "alive") {
					t.Errorf("%s/health: %d %s", addr, status, text)
				}
				if status, text := r.get(t, addr, "/ready"); status != http.StatusServiceUnavailable ||
					!strings.Contains(text, "NATS does not accept a connection") || strings.Contains(text, r.nats) {
					t.Errorf("%s/ready: %d %s", addr, status, text)
				}
				if status := health(t, addr); status != healthv1.HealthCheckResponse_NOT_SERVING {
					t.Errorf("%s: gRPC health is %v", addr, status)
				}
				commands := gatewayv1connect.NewCommandServiceClient(client(t, addr))
				_, err := commands.Submit(contextkit.TenantContext(t.Context(), natstest.Tenant(t, "acme")),
					&aggregatev1.SubmitRequest{})
				if connect.CodeOf(err) != connect.CodeUnavailable {
					t.Errorf("%s: call: %v, want UNAVAILABLE", addr, err)
				}
				if status, text := r.get(t, addr, "/v1/query/wallets"); status != http.StatusServiceUnavailable ||
					!strings.Contains(text, `"code":"unavailable"`) {
					t.Errorf("%s: JSON call: %d %s", addr, status, text)
				}
			}
			metrics := map[string]bool{r.main: name != "gateway", r.admin: name == "gateway"}
			for addr, shown := range metrics {
				if addr == r.admin && name != "gateway" {
					continue
				}
				status, text := r.get(t, addr, "/metrics")
				if (status == http.StatusOK) != shown ||
					strings.Contains(text, "headgate_nats_connected{process=\""+name+"\"} 0") != shown {
					t.Errorf("%s/metrics: %d", addr, status)
				}
			}

			r.startNATS(t, server.Options{})
			r.until(t, "listens on")
			want := http.StatusOK
			if name == "gateway" {
				want = http.StatusServiceUnavailable // there are no nodes
			}
			if status, text := r.get(t, r.main, "/ready"); status != want || strings.Contains(text, "the start waits") {
				t.Errorf("/ready after the start: %d %s", status, text)
			}
			if err := r.end(t); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStart_WaitsForJetStream(t *testing.T) {
	t.Parallel()
	r := startRole(t, "aggregate")
	r.until(t, "NATS does not accept a connection")
	addr, err := net.ResolveTCPAddr("tcp", r.nats)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := server.NewServer(&server.Options{
		Host:   addr.IP.String(),
		Port:   addr.Port,
		NoSigs: true,
		NoLog:  true,
	})
	if err != nil {
		t.Fatal(err)
	}
	plain.Start()
	t.Cleanup(func() { plain.Shutdown(); plain.WaitForShutdown() })
	r.until(t, "the streams of JetStream cannot be opened")
	if _, text := r.get(t, r.main, "/ready"); !strings.Contains(text, "the streams of JetStream cannot be opened") {
		t.Errorf("/ready: %s", text)
	}
	plain.Shutdown()
	plain.WaitForShutdown()
	r.startNATS(t, server.Options{})
	r.until(t, "listens on")
	if err := r.end(t); err != nil {
		t.Error(err)
	}
}

func TestStart_EndsWhileItWaits(t *testing.T) {
	r := startRole(t, "control")
	r.until(t, "the start waits")
	if err := r.end(t); err != nil {
		t.Error(err)
	}
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.main); err == nil {
		t.Error("the address is still bound", conn.Close())
	}
}
