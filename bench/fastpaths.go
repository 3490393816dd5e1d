package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/internal/fastpath"
)

type fastPathsCommand struct {
	Rounds  int           `default:"40" help:"Rounds, in which the gateways alternate."`
	Length  time.Duration `default:"200ms" help:"Length of a gateway's turn."`
	Callers int           `default:"16" help:"Concurrent callers."`
	Only    []string      `help:"Parts to compare, such as sockets; all if none is named."`
	Match   string        `help:"Part of the protocols' names, such as gRPC; all if there is none."`
}

// allPlain names the gateway without fast paths.
const allPlain = "all"

// Run compares gateways that differ in one fast path, by the CPU time per call of the gateway's process.
func (c *fastPathsCommand) Run(ctx context.Context) (err error) {
	a, err := startArena(ctx, "headgate")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if _, err := a.start(
		ctx, "upstream", "bench", "peer", "upstream", "--listen", a.addrs["upstream"], "--direct", a.addrs["direct"],
	); err != nil {
		return err
	}
	var parts []string
	for _, choice := range (fastpath.Paths{}).Choices() {
		parts = append(parts, choice.Part)
	}
	names := []string{"headgate"}
	for _, part := range append(parts, allPlain) {
		if len(c.Only) == 0 || slices.Contains(c.Only, part) {
			names = append(names, "plain-"+part)
		}
	}
	procs := map[string]*process{}
	for _, name := range names {
		for _, suffix := range []string{"", "-grpc", "-admin"} {
			if a.addrs[name+suffix], err = freeAddr(ctx); err != nil {
				return err
			}
		}
		a.paths[name] = a.paths["headgate"]
		plain, _ := strings.CutPrefix(name, "plain-")
		selected := []string{plain}
		if plain == allPlain {
			selected = parts
		}
		more := ""
		if plain != name {
			more = "fast_paths: {" + strings.Join(selected, ": plain, ") + ": plain}\n"
		}
		if procs[name], err = a.startHeadgate(ctx, prepared{
			name:   name,
			tenant: "acme",
			rights: []string{"query.read"},
			limits: boundless,
			nodes:  fmt.Sprintf(`{id: p, kind: projection, endpoint: "%s"}`, a.addrs["upstream"]),
			more:   more,
		}); err != nil {
			return err
		}
	}
	fmt.Printf("%s\n\n| | gateway | CPU µs per call | plain / fast | objects per call |\n|---|---|---|---|---|\n",
		a.versions(ctx))
	for _, protocol := range []string{"JSON over HTTP/1.1", "JSON over h2c", "gRPC over h2c"} {
		if !strings.Contains(protocol, c.Match) {
			continue
		}
		if err := c.compare(ctx, a, protocol, names, procs); err != nil {
			return err
		}
	}
	return nil
}

// compare measures the gateways in turn with calls of a protocol, and prints their rows.
func (c *fastPathsCommand) compare(
	ctx context.Context, a *arena, protocol string, names []string, procs map[string]*process,
) error {
	do := map[string]call{}
	for _, name := range names {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
		switch protocol {
		case "JSON over h2c":
			client.Transport = h2c()
			fallthrough
		case "JSON over HTTP/1.1":
			do[name] = jsonCall(client, "http://"+a.addrs[name]+"/v1/query/one", a.token, `{"tenantId":"acme"}`, 150)
			defer client.CloseIdleConnections()
		default:
			var end func()
			var err error
			if do[name], end, err = grpcCall(a.addrs[name+"-grpc"], a.token, "one", 150); err != nil {
				return err
			}
			defer end()
		}
		if _, err := saturate(ctx, do[name], c.Callers, 3*c.Length); err != nil { // warm
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	results := map[string]*measured{}
	for _, name := range names {
		results[name] = &measured{}
	}
	for round := range c.Rounds {
		first := round % len(names)
		for _, name := range slices.Concat(names[first:], names[:first]) {
			if err := c.turn(ctx, procs[name], do[name], results[name]); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		fmt.Fprintf(os.Stderr, "%s: round %d of %d\n", protocol, round+1, c.Rounds)
	}
	fast := results["headgate"]
	for _, name := range names {
		m := results[name]
		ratio := "–"
		if m != fast {
			ratio = within("%.3f", byRound(m.cpu, fast.cpu, func(x, y float64) float64 { return x / y }))
		}
		fmt.Printf("| %s | %s | %s | %s | %.0f |\n", protocol, name, within("%.1f", m.cpu), ratio, median(m.allocs))
	}
	return nil
}

// turn measures one gateway for the length of a turn.
func (c *fastPathsCommand) turn(ctx context.Context, p *process, do call, m *measured) error {
	objects, _, err := p.mallocs(ctx)
	if err != nil {
		return err
	}
	used, err := p.cpu()
	if err != nil {
		return err
	}
	made, err := saturate(ctx, do, c.Callers, c.Length)
	if err != nil {
		return err
	}
	now, err := p.cpu()
	if err != nil {
		return err
	}
	after, _, err := p.mallocs(ctx)
	if err != nil {
		return err
	}
	m.cpu = append(m.cpu, float64((now-used).Nanoseconds())/1000/float64(made))
	m.allocs = append(m.allocs, float64(after-objects)/float64(made))
	return nil
}
