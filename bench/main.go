package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type cli struct {
	Profile string `help:"Write a CPU profile of this process to this file." type:"path"`

	Submit     submitCommand     `cmd:"" help:"Compare commands through the gateway with raw JetStream publishes."`
	Projection projectionCommand `cmd:"" help:"Compare applying events and answering queries with raw SQLite."`
	Platform   platformCommand   `cmd:"" help:"Measure the time from a command to its row, for queries and watchers."`
	Routing    routingCommand    `cmd:"" help:"Measure the routing of 100,000 tenants over 1,000 endpoints."`
	Tenants    tenantsCommand    `cmd:"" help:"Measure the cost of idle tenants at a projection node."`
	TenantNode tenantNodeCommand `cmd:"" hidden:"" help:"Run one of the processes of tenants."`
	Runner     runnerCommand     `cmd:"" help:"Measure triggers, a restart and idle tenants of one runner."`
	Peers      peersCommand      `cmd:"" help:"Compare a call through Headgate with one through other gateways."`
	FastPaths  fastPathsCommand  `cmd:"" name:"fastpaths" help:"Measure the CPU time of calls without each fast path."`
	Peer       peerCommand       `cmd:"" hidden:"" help:"Run one of the processes of peers."`
}

func main() {
	debug.SetGCPercent(400) // the product's setting while the live heap is small
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	parsed := kong.Parse(&c, kong.Name("bench"), kong.UsageOnError())
	if c.Profile != "" {
		file, err := os.Create(c.Profile)
		parsed.FatalIfErrorf(err)
		parsed.FatalIfErrorf(pprof.StartCPUProfile(file))
		defer func() {
			pprof.StopCPUProfile()
			parsed.FatalIfErrorf(file.Close())
		}()
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.FatalIfErrorf(parsed.Run())
}

// contender is an implementation of the work that is compared. run does it until a time, and returns the number of
// completed operations.
type contender struct {
	name string
	run  func(ctx context.Context, until time.Time) (float64, error)
}

// contest runs the contenders in turn, and returns their rates in operations per second, by name and round.
func contest(
	ctx context.Context, rounds int, length time.Duration, contenders ...contender,
) (map[string][]float64, error) {
	rates := map[string][]float64{}
	for round := range rounds {
		for _, c := range contenders {
			began := time.Now()
			n, err := c.run(ctx, began.Add(length))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			rate := n / time.Since(began).Seconds()
			rates[c.name] = append(rates[c.name], rate)
			fmt.Fprintf(os.Stderr, "round %d: %s %.0f/s\n", round+1, c.name, rate)
		}
	}
	return rates, nil
}

// median returns the median of values, the upper one of an even number of values.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// spread formats the median and the range of rates.
func spread(values []float64) string {
	return fmt.Sprintf("%.0f/s (%.0f to %.0f)", median(values), slices.Min(values), slices.Max(values))
}
