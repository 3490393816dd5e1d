package main_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	aggregatev1connect "github.com/headgate/headgate/gen/aggregate/gateway/v1/gatewayv1connect"
	"github.com/headgate/headgate/internal/access"
	"github.com/headgate/headgate/internal/auditlog"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

// natsBinary builds nats-server, once.
var natsBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(binary), "nats-server")
	build := exec.Command("go", "build", "-modfile=../../tools/go.mod", "-o", path, "github.com/nats-io/nats-server/v2")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w: %s", err, output)
	}
	return path, nil
})

// cluster is the roles as separate processes, on nats-server processes.
type cluster struct {
	dir     string
	config  string
	nats    []*process
	wires   []*wire   // between the roles and each of these
	routes  [][]*wire // between these: from one to the other
	stores  []string  // directories of the servers; nil: in dir
	bus     string    // the settings of NATS
	usersBy string    // the program that makes the users of NATS; "": it is open
	users   string    // their directory; "": NATS is open
	roles   map[string]*process
	gateway string // URL
	admin   string // URL
}

// process is a program that can be killed and started again.
type process struct {
	path  string
	args  []string
	ready string // prefix of the line of output that reports readiness

	mu     sync.Mutex
	cmd    *exec.Cmd
	output strings.Builder
	done   chan struct{}
}

// Write collects the process's output.
func (p *process) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(text)
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// start runs the program until it reports that it is ready, and returns that line.
func (p *process) start(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(p.path, p.args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan string, 2)
	var read sync.WaitGroup
	for _, pipe := range []*bufio.Scanner{bufio.NewScanner(stdout), bufio.NewScanner(stderr)} {
		pipe.Buffer(nil, 1<<20)
		read.Go(func() {
			for pipe.Scan() {
				_, _ = p.Write(append(pipe.Bytes(), '\n'))
				if strings.Contains(pipe.Text(), p.ready) {
					select {
					case ready <- pipe.Text():
					default:
					}
				}
			}
		})
	}
	done := make(chan struct{})
	go func() {
		read.Wait()
		_ = cmd.Wait()
		close(done)
	}()
	p.cmd, p.done = cmd, done
	t.Cleanup(func() { p.kill() })
	select {
	case line := <-ready:
		return line
	case <-done:
		t.Fatalf("%s ended while starting:\n%s", filepath.Base(p.path), p.log())
	case <-time.After(startTimeout):
		t.Fatalf("%s was not ready within %v:\n%s", filepath.Base(p.path), startTimeout, p.log())
	}
	return ""
}

// kill ends the process as a crash does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop ends the process as an operator does, and waits.
func (p *process) stop(t *testing.T) {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		_ = p.cmd.Process.Signal(syscall.SIGQUIT) // what it still does
		<-p.done
		t.Fatalf("%s did not stop within %v:\n%s", filepath.Base(p.path), stopTimeout, p.log())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%v ended with %d:\n%s", p.args, code, p.log())
	}
}

// firstPort and lastPort bound the ports of [freePort], which are below the ports that the system gives
// to connections.
const firstPort, lastPort = 20_000, 30_000

// givenPorts are the results of [freePort], none of which is given twice.
var givenPorts sync.Map

// freePort returns an address with a port that is free, and stays free until a process of the test
// listens on it, also while that process is started again.
func freePort(t *testing.T) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", firstPort+rand.N(lastPort-firstPort))
		if _, given := givenPorts.LoadOrStore(addr, true); given {
			continue
		}
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
		if err != nil {
			continue // taken
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no port is free")
	return ""
}

// headgate runs the program and returns what it prints.
func headgate(t *testing.T, args ...string) string {
	t.Helper()
	return printed(t, binary, args...)
}

// printed runs a program, which may be of an earlier version, and returns what it prints.
func printed(t *testing.T, program string, args ...string) string {
	t.Helper()
	text, err := exec.CommandContext(t.Context(), program, args...).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("%s %v: %v: %s", filepath.Base(program), args, err, failed.Stderr)
	}
	if err != nil {
		t.Fatalf("%s %v: %v", filepath.Base(program), args, err)
	}
	return strings.TrimSpace(string(text))
}

// write puts a file into the cluster's directory.
func (c *cluster) write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// startNATS starts one NATS server, or several that are one cluster. One syncs every write;
// of several, which have a copy each, none does.
func (c *cluster) startNATS(t *testing.T, servers int) {
	t.Helper()
	path, err := natsBinary()
	if err != nil {
		t.Fatal(err)
	}
	secured := c.usersBy != ""
	if secured {
		c.users = filepath.Join(c.dir, "users")
		printed(t, c.usersBy, "nats-config", c.users)
	}
	var routes, urls []string
	for range servers {
		routes = append(routes, freePort(t))
	}
	c.startRoutes(t, routes)
	for n, route := range routes {
		listen := freePort(t)
		store := filepath.Join(c.dir, fmt.Sprintf("nats-%d", n))
		if c.stores != nil {
			store = c.stores[n]
		}
		text := fmt.Sprintf("server_name: n%d\nlisten: %q\njetstream {store_dir: %q", n, listen, store)
		if servers == 1 {
			text += ", sync_interval: always}\n"
		} else { // clients and servers stay with the addresses that they were given, which are the wires'
			text += fmt.Sprintf(
				"}\ncluster {name: test, listen: %q, no_advertise: true, advertise: \"127.0.0.1:1\", routes: [%s]}\n",
				route, c.routesOf(n),
			)
		}
		if secured {
			text += "include \"users/users.conf\"\n"
		}
		server := &process{
			path:  path,
			ready: "Server is ready",
			args:  []string{"-c", c.write(t, fmt.Sprintf("nats-%d.conf", n), text)},
		}
		server.start(t)
		t.Cleanup(func() {
			for line := range strings.Lines(server.log()) {
				if strings.Contains(line, "Violation") {
					t.Errorf("a role lacks a permission: %s", line)
				}
			}
		})
		c.nats, c.wires = append(c.nats, server), append(c.wires, startWire(t, listen))
		urls = append(urls, "nats://"+c.wires[n].addr)
	}
	c.bus = fmt.Sprintf("{url: %q, replicas: %d, synced: %v}", strings.Join(urls, ","), servers, servers == 1)
	if secured {
		c.bus = strings.Replace(c.bus, "}", fmt.Sprintf(", nkey: %q}", filepath.Join(c.users, "nkeys", "{role}.nk")), 1)
		printed(t, c.usersBy, "nats-setup", "--config", c.write(t, "setup.yaml", "nats: "+c.bus+"\n"))
	}
}

// awaitPeers waits until a stream with a replica on each NATS server can be created.
func (c *cluster) awaitPeers(t *testing.T, servers int) {
	t.Helper()
	conn := c.connect(t)
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	const trial = "TRIAL"
	if err := eventually(ctx, "all NATS servers are peers", func() (bool, error) {
		attempt, cancel := context.WithTimeout(ctx, time.Second) // no server answers without a leader
		defer cancel()
		_, err := js.CreateStream(attempt, jetstream.StreamConfig{Name: trial, Replicas: servers})
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(ctx, trial); err != nil {
		t.Fatal(err)
	}
}

// connect connects to the first NATS server with all permissions.
func (c *cluster) connect(t *testing.T) *nats.Conn {
	t.Helper()
	var options []nats.Option
	if c.users != "" {
		option, err := nats.NkeyOptionFromSeed(filepath.Join(c.users, "nkeys", "setup.nk"))
		if err != nil {
			t.Fatal(err)
		}
		var chosen nats.Options
		if err := option(&chosen); err != nil {
			t.Fatal(err)
		}
		options = append(options, option, nats.CustomInboxPrefix(access.InboxPrefix(chosen.Nkey)))
	}
	conn, err := natsclient.Connect("nats://"+c.wires[0].addr, t.Name(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// startCluster starts NATS and one process a role; the gateway calls some at their port
// for gRPC alone, the runner at its main one. With certificates, every channel is TLS
// and every node asks the gateway for a certificate. The NATS servers store in the directories
// that are given, or in temporary ones.
func startCluster(t *testing.T, natsServers int, files *tlsfiles.Files, stores ...string) *cluster {
	t.Helper()
	usersBy := binary
	if os.Getenv(beforeVariable) != "" { // an earlier version may have no users
		usersBy = ""
	}
	return startClusterOf(t, binary, usersBy, natsServers, files, stores...)
}

// startClusterOf is [startCluster] for the program at a path, which may be of an earlier version. usersBy is the
// program that makes the users of NATS; "": it is open.
func startClusterOf(
	t *testing.T, program, usersBy string, natsServers int, files *tlsfiles.Files, stores ...string,
) *cluster {
	t.Helper()
	c := &cluster{
		dir:     t.TempDir(),
		stores:  stores,
		usersBy: usersBy,
		roles:   map[string]*process{},
	}
	c.startNATS(t, natsServers)
	if program != binary { // an earlier version may not wait for them
		c.awaitPeers(t, natsServers)
	}

	addr := map[string]string{}
	for _, name := range []string{"gateway", "admin", "aggregate", "projection", "runner"} {
		addr[name] = freePort(t)
	}
	keys := c.write(t, "keys.json", headgate(t, "keys", "--data", c.dir))
	credential := c.write(
		t, "runner.token",
		headgate(t, "token", "--data", c.dir, "--subject", "runner", "--tenant", "*", "--right", "command.submit",
			"--right", "command.internal"),
	)
	server, client, edge, scheme, certificates := "", "{}", "", "http", ""
	if files != nil {
		certificates = fmt.Sprintf(
			`, certificates: [{name: partners, ca: %q, claims: {subject: claims.common_name, tenants: '["acme"]', rights: %s}}]`,
			files.CA, `'lookup(claims.dns, {"partner": ["query.read"]})'`,
		)
		scheme = "https"
		server = fmt.Sprintf("\n  tls: {cert: %s, key: %s, ca: %s}", files.Cert, files.Key, files.CA)
		edge = fmt.Sprintf("\n  tls: {cert: %s, key: %s}", files.Cert, files.Key)
		client = fmt.Sprintf("{cert: %s, key: %s, ca: %s}", files.Cert, files.Key, files.CA)
	}
	c.config = c.write(t, "headgate.yaml", fmt.Sprintf(`
nats: %s
log: warn
gateway:
  server: {listen: "%s"}%s
  grpc: 127.0.0.1:0
  admin: "%s"
  auth: {issuer: headgate-dev, audience: headgate, keys: "%s"%s}
  upstream_tls: %s
  probes: {every: 200ms}
aggregate:
  server: {listen: "%s"}%s
  grpc: 127.0.0.1:0
projection:
  server: {listen: "%s"}%s
  grpc: 127.0.0.1:0
  data: "%s"
runner:
  server: {listen: "%s"}%s
  gateway: "%s"
  credential: "%s"
  gateway_tls: %s
`, c.bus, addr["gateway"], edge, addr["admin"], keys, certificates, client,
		addr["aggregate"], server, addr["projection"], server, filepath.Join(c.dir, "views"), addr["runner"], server,
		addr["gateway"], credential, client))
	for _, role := range []string{"aggregate", "projection", "gateway", "runner"} {
		c.roles[role] = &process{
			path:  program,
			ready: "listens on",
			args:  []string{"serve", role, "--config", c.config},
		}
		c.roles[role].start(t)
	}
	c.gateway, c.admin = scheme+"://"+addr["gateway"], "http://"+addr["admin"]
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	if err := eventually(ctx, "the gateway receives the nodes' announcements", func() (bool, error) {
		_, text, err := get(ctx, c.admin+"/ready")
		if err != nil {
			return false, err
		}
		var body struct {
			Status   string            `json:"status"`
			Degraded map[string]string `json:"degraded"`
		}
		err = json.Unmarshal([]byte(text), &body)
		delete(body.Degraded, "control") // this cluster has none
		return body.Status == "ready" && len(body.Degraded) == 0, err
	}); err != nil {
		t.Fatal(err)
	}
	return c
}

// token issues a token that the cluster accepts.
func (c *cluster) token(t *testing.T, tenant string, rights ...string) string {
	t.Helper()
	args := []string{"token", "--data", c.dir, "--tenant", tenant}
	for _, right := range rights {
		args = append(args, "--right", right)
	}
	return "Bearer " + headgate(t, args...)
}

// stop ends all processes in order.
func (c *cluster) stop(t *testing.T) {
	t.Helper()
	for _, role := range []string{"runner", "gateway", "aggregate", "projection"} {
		c.roles[role].stop(t)
	}
}

func TestServe_EveryRoleIsAProcessOverMutualTLS(t *testing.T) {
	t.Parallel()
	authority := tlstest.NewAuthority(t)
	certificates := t.TempDir()
	files := authority.IssueFor(t, certificates, "headgate", "gateway")
	c := startCluster(t, 1, &files)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(files.CA)
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	var served string // serial number of the edge's certificate
	client := func() *http.Client {
		return &http.Client{
			Transport: &http.Transport{
				ForceAttemptHTTP2: true,
				DisableKeepAlives: true,
				TLSClientConfig: &tls.Config{RootCAs: roots, VerifyConnection: func(state tls.ConnectionState) error {
					served = state.PeerCertificates[0].SerialNumber.String()
					return nil
				}},
			},
		}
	}
	token := c.token(t, "acme", "command.submit", "query.read")
	callBy := func(by *http.Client, token, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.gateway+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", token)
		}
		res, err := by.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text := new(strings.Builder)
		if _, err := bufio.NewReader(res.Body).WriteTo(text); err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, text.String()
	}
	call := func(path, body string) (int, string) { return callBy(client(), token, path, body) }
	for _, step := range [][2]string{
		{"/v1/commands/wallet/a/open", `{"payload":{"owner":"Ada"}}`},
		{"/v1/commands/wallet/b/open", `{"payload":{"owner":"Bob"}}`},
		{"/v1/commands/wallet/a/deposit", `{"payload":{"amount":100}}`},
		{"/v1/commands/transfer/t/request", `{"payload":{"from":"a","to":"b","amount":60}}`},
	} {
		if status, text := call(step[0], step[1]); status != http.StatusOK {
			t.Fatalf("%s: %d %s", step[0], status, text)
		}
	}
	if err := eventually(ctx, "the workflow's commands passed through the gateway", func() (bool, error) {
		_, text := call("/v1/query/transfers", `{"query":{"filter":"state = \"completed\""}}`)
		return strings.Contains(text, `"transfer_id":"t"`), nil
	}); err != nil {
		t.Fatalf("%v\n%s", err, c.roles["runner"].log())
	}
	// Control queries all of them, with its own certificate.
	pair := fmt.Sprintf("{cert: %s, key: %s, ca: %s}", files.Cert, files.Key, files.CA)
	control := c.further(t, "control", "control-1",
		fmt.Sprintf("  server: {listen: %q}\n  grpc: 127.0.0.1:0\n  tls: %s\n  nodes_tls: %s", freePort(t), pair, pair))
	operator := c.token(t, "*", "fleet.read")
	var fleet string
	if err := eventually(ctx, "all nodes respond to control", func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.gateway+"/v1/control/fleet", nil)
		if err != nil {
			return false, err
		}
		req.Header.Set("Authorization", operator)
		res, err := client().Do(req)
		if err != nil {
			return false, err
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		fleet = string(text)
		return strings.Count(fleet, `"answered":true`) == 5, err
	}); err != nil {
		t.Fatalf("%v: %s\n%s", err, fleet, control.log())
	}

	// Clients call with certificates, with keys that control issues, and with neither once they are revoked.
	partner := client()
	pairOf, err := tls.LoadX509KeyPair(certificateOf(authority.Issue(t, t.TempDir(), "partner")))
	if err != nil {
		t.Fatal(err)
	}
	partner.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pairOf}
	if status, text := callBy(partner, "", "/v1/query/wallets", `{}`); status != http.StatusOK {
		t.Errorf("call with a certificate: %d %s", status, text)
	}
	c.issueAndRevoke(ctx, t,
		func(token, path, body string) (int, string) { return callBy(client(), token, path, body) })

	// A node accepts no client without a certificate of the authority.
	node := "https://" + strings.Split(c.roles["aggregate"].log(), "https://")[1]
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	if res, err := stranger.Get(strings.TrimSpace(node) + "/health"); err == nil {
		res.Body.Close()
		t.Error("a node accepts a client without a certificate")
	}
	_, rest, _ := strings.Cut(fleet, `"kind":"aggregate","endpoint":"`)
	alone, _, _ := strings.Cut(rest, `"`)
	conn, err := (&tls.Dialer{
		Config: &tls.Config{RootCAs: roots, NextProtos: []string{"h2"}},
	}).DialContext(ctx, "tcp", alone)
	if err == nil {
		// With TLS 1.3 the server's verdict comes after the client's part.
		_, err = io.ReadFull(conn, make([]byte, 9))
		_ = conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("gRPC-only port %s accepts a client without a certificate: %v", alone, err)
	}

	// Calls that bypass the gateway are recorded by the node, once each, and those before are not.
	c.callDirectly(ctx, t, authority, strings.TrimPrefix(strings.TrimSpace(node), "https://"))

	// A new certificate counts without a restart.
	before := served
	authority.IssueFor(t, certificates, "headgate", "gateway")
	if err := eventually(ctx, "the new certificate is served", func() (bool, error) {
		status, _ := call("/v1/query/wallets", `{}`)
		return status == http.StatusOK && served != before, nil
	}); err != nil {
		t.Fatal(err)
	}
	c.stop(t)
}

// certificateOf returns the files of a certificate and its key.
func certificateOf(files tlsfiles.Files) (cert, key string) { return files.Cert, files.Key }

// issueAndRevoke issues an API key and a token, and revokes both, through the gateway, whose process receives the keys
// and revocations of control's over NATS.
func (c *cluster) issueAndRevoke(
	ctx context.Context, t *testing.T, call func(token, path, body string) (status int, text string),
) {
	t.Helper()
	admin := c.token(t, "*", "key.admin", "token.revoke", "query.read")
	change := func(path, body string) string {
		t.Helper()
		status, text := call(admin, path, body)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", path, status, text)
		}
		return text
	}
	becomes := func(token string, want int) {
		t.Helper()
		if err := eventually(ctx, fmt.Sprintf("a call with the credential is answered %d", want), func() (bool, error) {
			status, text := call(token, "/v1/query/wallets", `{}`)
			return status == want, errors.New(text)
		}); err != nil {
			t.Error(err)
		}
	}
	var issued struct {
		APIKey struct {
			ID string `json:"id"`
		} `json:"apiKey"`
		Secret string `json:"secret"`
	}
	if err := json.Unmarshal([]byte(change("/v1/control/api-keys",
		`{"displayName":"reporting","tenants":["acme"],"rights":["query.read"]}`)), &issued); err != nil {
		t.Fatal(err)
	}
	becomes("Bearer "+issued.Secret, http.StatusOK)
	change("/v1/control/api-keys/"+issued.APIKey.ID+":revoke", `{"reason":"a test"}`)
	becomes("Bearer "+issued.Secret, http.StatusUnauthorized)

	token := c.token(t, "acme", "query.read")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Issuer string `json:"iss"`
		ID     string `json:"jti"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		t.Fatal(err)
	}
	becomes(token, http.StatusOK)
	change("/v1/control/revocations:revokeToken",
		fmt.Sprintf(`{"issuer":%q,"tokenId":%q,"reason":"a test"}`, claims.Issuer, claims.ID))
	becomes(token, http.StatusUnauthorized)
}

// callDirectly calls an aggregate at its port, with a gateway's certificate and with that of another role,
// and checks the records in AUDIT.
func (c *cluster) callDirectly(ctx context.Context, t *testing.T, authority *tlstest.Authority, addr string) {
	t.Helper()
	dir := t.TempDir()
	call := func(role string) error {
		material, err := tlsfiles.Open(authority.IssueFor(t, dir, "operator-"+role, role), nil)
		if err != nil {
			t.Fatal(err)
		}
		transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: material.Client("headgate")}
		defer transport.CloseIdleConnections()
		commands := aggregatev1connect.NewCommandServiceClient(
			contextkit.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "https://"+addr)),
		)
		_, err = commands.GetAggregate(contextkit.TenantContext(ctx, parseTenant(t, "acme")),
			&aggregatev1.GetAggregateRequest{AggregateType: "wallet", AggregateId: "a"})
		return err
	}
	if err := call("gateway"); err != nil {
		t.Error(err)
	}
	if err := call("projection"); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("certificate of a projection: %v", err)
	}
	js, err := jetstream.New(c.connect(t))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, streams.Audit)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	if err := eventually(ctx, "both calls are recorded", func() (bool, error) {
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter("audit.*.direct"))
		if err != nil {
			return false, err
		}
		counts = info.State.Subjects
		return len(counts) == 2, nil
	}); err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[string]auditlog.Record{
		"audit.acme.direct": {Decision: "allowed", Principal: "spiffe://headgate.test/role/gateway", Code: "ok"},
		"audit._platform.direct": {
			Decision:  "denied",
			Principal: "spiffe://headgate.test/role/projection",
			Code:      "permission_denied",
		},
	} {
		msg, err := stream.GetLastMsgForSubject(ctx, subject)
		if err != nil {
			t.Fatal(err)
		}
		var record auditlog.Record
		if err := json.Unmarshal(msg.Data, &record); err != nil {
			t.Fatal(err)
		}
		if counts[subject] != 1 || record.Decision != want.Decision || record.Principal != want.Principal ||
			record.Code != want.Code ||
			record.Procedure != "/aggregate.gateway.v1.CommandService/GetAggregate" || record.Tenant != "acme" ||
			record.Client != "127.0.0.1" {
			t.Errorf("%s: %d records, last %+v", subject, counts[subject], record)
		}
	}
}

func TestGateway_FollowsNodesThatDieDrainAndReturn(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs every role as a process; other tests cover this under the race detector")
	}
	c := startCluster(t, 1, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	until := func(what string, condition func(nodes string) bool) time.Duration {
		t.Helper()
		began := time.Now()
		err := eventually(ctx, what, func() (bool, error) {
			_, nodes, err := get(ctx, c.admin+"/nodes")
			return err == nil && condition(nodes), err
		})
		if err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	has := func(kind string, ready bool) func(string) bool {
		return func(nodes string) bool {
			_, rest, found := strings.Cut(nodes, `"kind":"`+kind+`"`)
			rest, _, _ = strings.Cut(rest, "}")
			return found && strings.Contains(rest, fmt.Sprintf(`"ready":%v`, ready))
		}
	}
	until("the node is known", has("projection", true))
	c.roles["projection"].kill()
	took := until("a dead node is removed from routing",
		func(nodes string) bool { return !strings.Contains(nodes, `"kind":"projection"`) })
	t.Logf("the dead node was removed after %v", took.Round(time.Millisecond))
	c.roles["projection"].start(t)
	until("the node is back", has("projection", true))

	operator := c.token(t, "*", "runner.admin")
	post := func(path string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.gateway+path, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if status, text, err := do(req, "Authorization", operator); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s %v", path, status, text, err)
		}
	}
	post("/admin/runner/drain")
	until("a drained node receives no calls", has("runner", false))
	post("/admin/runner/resume")
	until("the node receives calls again", has("runner", true))
	c.roles["aggregate"].stop(t)
	until("a stopped node deregisters",
		func(nodes string) bool { return !strings.Contains(nodes, `"kind":"aggregate"`) })
	c.roles["aggregate"].start(t)
	until("the node is back", has("aggregate", true))
	c.stop(t)
}

func TestServe_CheckReadsSettingsWithoutStarting(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "f.yaml")
	for text, want := range map[string]string{
		"log: loud\n":                           path + ":1: log: is \"loud\"",
		"tracing: {endpoint: collector}\n":      path + ":1: tracing.endpoint: \"collector\"",
		"tracing: {share: 2}\n":                 path + ":1: tracing.share: is 2",
		"nats: {url: \"nats://127.0.0.1:1\"}\n": "settings of the aggregate can be used",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		output, err := exec.CommandContext(t.Context(), binary, "serve", "aggregate", "--config", path,
			"--check").CombinedOutput()
		if !strings.Contains(string(output), want) || (err == nil) != strings.Contains(want, "can be used") {
			t.Errorf("%q: %s, %v", text, output, err)
		}
	}
}
