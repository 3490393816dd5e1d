package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// arena holds the processes of a comparison.
type arena struct {
	dir   string
	stop  context.CancelFunc
	procs []*process
	addrs map[string]string
	token string
	paths map[string]string // of programs
}

// startArena builds the programs and starts NATS.
func startArena(ctx context.Context, programs ...string) (_ *arena, err error) {
	a := &arena{addrs: map[string]string{}, paths: map[string]string{}}
	if a.dir, err = os.MkdirTemp("", "headgate-peers"); err != nil {
		return nil, err
	}
	ctx, a.stop = context.WithCancel(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	if a.paths["bench"], err = os.Executable(); err != nil {
		return nil, err
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return nil, err
	}
	sources := map[string][]string{
		"headgate": {"-C", root, "build", "-o", filepath.Join(a.dir, "headgate"), "./cmd/headgate"},
		"nats-server": {
			"-C", root, "build", "-modfile=tools/go.mod", "-o", filepath.Join(a.dir, "nats-server"),
			"github.com/nats-io/nats-server/v2",
		},
		"grpcgateway": {
			"-C", filepath.Join(root, "bench"), "build", "-o", filepath.Join(a.dir, "grpcgateway"), "./grpcgateway",
		},
	}
	for _, name := range append(programs, "nats-server") {
		fmt.Fprintln(os.Stderr, "building", name)
		if output, err := exec.CommandContext(ctx, "go", sources[name]...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w: %s", name, err, output)
		}
		a.paths[name] = filepath.Join(a.dir, name)
	}
	for _, name := range []string{
		"nats", "upstream", "direct", "headgate", "headgate-grpc", "headgate-admin", earlier, earlier + "-grpc",
		earlier + "-admin", "vanguard", "vanguard-admin", "forwarder", "forwarder-admin", "grpcgo", "grpcgo-admin",
		"nethttp", "grpcgateway", "grpcgateway-admin", "nginx", "haproxy",
	} {
		if a.addrs[name], err = freeAddr(ctx); err != nil {
			return nil, err
		}
	}
	_, natsPort, _ := strings.Cut(a.addrs["nats"], ":")
	if _, err := a.start(
		ctx, "nats", "nats-server", "-a", "127.0.0.1", "-p", natsPort, "-js", "-sd", filepath.Join(a.dir, "nats"),
	); err != nil {
		return nil, err
	}
	return a, nil
}

func moduleRoot(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/headgate/headgate").Output()
	if err != nil {
		return "", fmt.Errorf("run it from the folder bench: %w", err)
	}
	return strings.TrimSpace(string(output)), nil
}

// start starts a program that listens on the address of that name.
func (a *arena) start(ctx context.Context, name, program string, args ...string) (*process, error) {
	p, err := startProcess(ctx, filepath.Join(a.dir, name+".log"), a.addrs[name], a.paths[program], args...)
	if err == nil {
		a.procs = append(a.procs, p)
	}
	return p, err
}

func (a *arena) close() error {
	for _, p := range slices.Backward(a.procs) {
		p.stop()
	}
	a.stop()
	return os.RemoveAll(a.dir)
}

// run runs the product's binary until it exits, and returns its output.
func (a *arena) run(ctx context.Context, args ...string) (string, error) {
	output, err := exec.CommandContext(ctx, a.paths["headgate"], args...).Output()
	return strings.TrimSpace(string(output)), err
}

// issue returns a token of the platform with the data directory.
func (a *arena) issue(ctx context.Context, data, tenant string, rights ...string) (string, error) {
	args := []string{"token", "--data", data, "--ttl", "6h", "--tenant", tenant}
	for _, right := range rights {
		args = append(args, "--right", right)
	}
	return a.run(ctx, args...)
}

// boundless are limits that the load does not reach.
const boundless = "{rate: 1000000, burst: 1000000, concurrent: 4096}"

// earlier is the name of the contestant that is an earlier version of Headgate.
const earlier = "headgate-earlier"

// prepared configures a gateway to start.
type prepared struct {
	name   string // of its program and its addresses; "": headgate
	tenant string // of its token
	rights []string
	limits string // of each tenant
	nodes  string
	more   string // further settings of the gateway, whole lines
}

// startHeadgate starts the product's binary with all stages enabled.
func (a *arena) startHeadgate(ctx context.Context, with prepared) (*process, error) {
	name := cmp.Or(with.name, "headgate")
	keys, err := a.run(ctx, "keys", "--data", a.dir)
	if err != nil {
		return nil, err
	}
	if a.token, err = a.issue(ctx, a.dir, with.tenant, with.rights...); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`nats: {url: "nats://%s"}
log: info
gateway:
  server: {listen: "%s"}
  grpc: "%s"
  admin: "%s"
  auth: {issuer: headgate-dev, audience: headgate, keys: "%s"}
  tenant_limits: %s
  nodes: [%s]
%s`, a.addrs["nats"], a.addrs[name], a.addrs[name+"-grpc"], a.addrs[name+"-admin"], filepath.Join(a.dir, "keys.json"),
		with.limits, with.nodes, with.more)
	for name, text := range map[string]string{"keys.json": keys, name + ".yaml": config} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	p, err := a.start(ctx, name, name, "serve", "gateway", "--config", filepath.Join(a.dir, name+".yaml"))
	if err != nil {
		return nil, err
	}
	p.admin = "http://" + a.addrs[name+"-admin"] + "/metrics"
	return p, nil
}

// protocols starts the contestants and returns them by protocol.
func (a *arena) protocols(ctx context.Context, only []string) ([]protocol, error) {
	wanted := func(name string) bool { return len(only) == 0 || slices.Contains(only, name) }
	procs := map[string]*process{}
	var err error
	if procs["direct"], err = a.start(
		ctx, "upstream", "bench", "peer", "upstream", "--listen", a.addrs["upstream"], "--direct", a.addrs["direct"],
	); err != nil {
		return nil, err
	}
	for _, name := range []string{"headgate", earlier} {
		if a.paths[name] == "" {
			continue
		}
		if procs[name], err = a.startHeadgate(ctx, prepared{
			name:   name,
			tenant: "acme",
			rights: []string{"query.read"},
			limits: boundless,
			nodes:  fmt.Sprintf(`{id: p, kind: projection, endpoint: "%s"}`, a.addrs["upstream"]),
		}); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"vanguard", "forwarder", "grpcgo"} {
		if !wanted(name) {
			continue
		}
		if procs[name], err = a.start(
			ctx, name, "bench", "peer", name, "--listen", a.addrs[name], "--admin", a.addrs[name+"-admin"], "--http",
			a.addrs["nethttp"], "--upstream", a.addrs["upstream"],
		); err != nil {
			return nil, err
		}
		procs[name].admin = "http://" + a.addrs[name+"-admin"]
	}
	if wanted("grpcgateway") {
		if procs["grpcgateway"], err = a.start(
			ctx, "grpcgateway", "grpcgateway", "-listen", a.addrs["grpcgateway"], "-admin",
			a.addrs["grpcgateway-admin"], "-upstream", a.addrs["upstream"],
		); err != nil {
			return nil, err
		}
		procs["grpcgateway"].admin = "http://" + a.addrs["grpcgateway-admin"]
	}
	for name, args := range a.proxies() {
		path, err := exec.LookPath(name)
		if err != nil || !wanted(name) {
			continue // it is not installed
		}
		a.paths[name] = path
		if procs[name], err = a.start(ctx, name, name, args...); err != nil {
			return nil, err
		}
	}

	http1 := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	http2 := &http.Client{Transport: h2c()}
	least := map[string]int{"one": 150, "hundred": 15_000}
	rest := func(client *http.Client, name string) *contestant {
		do := map[string]call{}
		for _, view := range []string{"one", "hundred"} {
			url, body := "http://"+a.addrs[name]+"/v1/query/"+view, `{"tenantId":"acme"}`
			if name == "direct" || name == "forwarder" { // they only serve Connect
				url, body = "http://"+a.addrs[name]+
					"/projection.gateway.v1.QueryService/Query", `{"tenantId":"acme","view":"`+view+`"}`
			}
			do[view] = jsonCall(client, url, a.token, body, int64(least[view]))
		}
		return &contestant{
			name: name,
			do:   do,
			p:    procs[name],
			rest: name == "direct",
		}
	}
	groups := []protocol{{name: "JSON over HTTP/1.1"}, {name: "JSON over h2c"}, {name: "gRPC over h2c"}}
	procs["nethttp"] = procs["grpcgo"]
	for _, name := range []string{"direct", "headgate", earlier, "grpcgateway", "vanguard", "forwarder", "nethttp"} {
		if procs[name] != nil && (name == "direct" || name == "headgate" || name == earlier || wanted(name)) {
			groups[0].group = append(groups[0].group, rest(http1, name))
			groups[1].group = append(groups[1].group, rest(http2, name))
		}
	}
	for name, addr := range map[string]string{
		"direct": "upstream", "headgate": "headgate-grpc", earlier: earlier + "-grpc", "vanguard": "vanguard",
		"forwarder": "forwarder", "grpcgo": "grpcgo", "nginx": "nginx", "haproxy": "haproxy",
	} {
		if procs[name] == nil {
			continue
		}
		one := &contestant{
			name: name,
			do:   map[string]call{},
			p:    procs[name],
			rest: name == "direct",
		}
		for _, view := range []string{"one", "hundred"} {
			if one.do[view], _, err = grpcCall(a.addrs[addr], a.token, view, least[view]); err != nil {
				return nil, err
			}
		}
		groups[2].group = append(groups[2].group, one)
	}
	order := []string{
		"direct", "headgate", earlier, "grpcgateway", "vanguard", "forwarder", "grpcgo", "nginx", "haproxy",
	}
	slices.SortFunc(groups[2].group,
		func(x, y *contestant) int { return slices.Index(order, x.name) - slices.Index(order, y.name) })
	return groups, nil
}

// proxies writes the settings of the proxies that need no code, and returns their arguments. Each runs as one process,
// so that the CPU time of the process is that of the proxy.
func (a *arena) proxies() map[string][]string {
	nginx := filepath.Join(a.dir, "nginx.conf")
	haproxy := filepath.Join(a.dir, "haproxy.cfg")
	for path, text := range map[string]string{
		nginx: fmt.Sprintf(`daemon off; master_process off; pid %s/nginx.pid; error_log stderr warn;
events { worker_connections 1024; }
http {
  access_log %s/access.log;
  client_body_temp_path %s; proxy_temp_path %s; fastcgi_temp_path %s; uwsgi_temp_path %s; scgi_temp_path %s;
  upstream node { server %s; keepalive 64; }
  server {
    listen %s http2;
    keepalive_requests 100000000;
    location / { grpc_pass grpc://node; }
  }
}
`, a.dir, a.dir, a.dir, a.dir, a.dir, a.dir, a.dir, a.addrs["upstream"], a.addrs["nginx"]),
		haproxy: fmt.Sprintf(`global
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend edge
  bind %s proto h2
  default_backend node
backend node
  server one %s proto h2
`, a.addrs["haproxy"], a.addrs["upstream"]),
	} {
		_ = os.WriteFile(path, []byte(text), 0o600) // the start reports a missing file
	}
	return map[string][]string{"nginx": {"-c", nginx, "-p", a.dir}, "haproxy": {"-db", "-f", haproxy}}
}

// versions returns a line with the versions of the compared programs.
func (a *arena) versions(ctx context.Context) string {
	parts := []string{runtime.Version(), fmt.Sprintf("%d cores", runtime.NumCPU())}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if slices.Contains(
				[]string{
					"connectrpc.com/vanguard", "connectrpc.com/connect/v2", "google.golang.org/grpc",
					"github.com/grpc-ecosystem/grpc-gateway/v2",
				},
				dep.Path,
			) {
				parts = append(parts, dep.Path+" "+dep.Version)
			}
		}
	}
	for _, name := range []string{"nginx", "haproxy"} {
		if path := a.paths[name]; path != "" {
			output, _ := exec.CommandContext(ctx, path, "-v").CombinedOutput() // without it the line is shorter
			first, _, _ := strings.Cut(string(output), "\n")
			parts = append(parts, strings.TrimPrefix(first, "nginx version: "))
		}
	}
	return strings.Join(parts, " · ")
}
