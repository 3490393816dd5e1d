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
	Profile string `help:"Write a CPU profile of all of it to this file." type:"path"`

	Submit     submitCommand     `cmd:"" help:"Commands through the gateway against raw JetStream publishes."`
	Projection projectionCommand `cmd:"" help:"Applying events and answering queries against raw SQLite."`
	Platform   platformCommand   `cmd:"" help:"From a command to its row: freshness, and a thousand who watch."`
	Routing    routingCommand    `cmd:"" help:"A hundred thousand tenants over a thousand endpoints."`
	Tenants    tenantsCommand    `cmd:"" help:"What idle tenants cost a projection node, by their number."`
	TenantNode tenantNodeCommand `cmd:"" hidden:"" help:"One of the processes of tenants."`
	Runner     runnerCommand     `cmd:"" help:"Triggers, a restart and idle tenants of one runner, by the number of tenants."`
	Peers      peersCommand      `cmd:"" help:"One call through Headgate, and through its peers."`
	FastPaths  fastPathsCommand  `cmd:"" name:"fastpaths" help:"The CPU time of a call with and without each fast path."`
	Peer       peerCommand       `cmd:"" hidden:"" help:"One of the processes of peers."`
}

func main() {
	debug.SetGCPercent(400) // as the product has it, while little is live
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

// contender is one of two ways to do the same work; it returns how much it did.
type contender struct {
	name string
	run  func(ctx context.Context, until time.Time) (float64, error)
}

// contest runs contenders in turn and returns their rates per second, by round.
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

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func spread(values []float64) string {
	return fmt.Sprintf("%.0f/s (%.0f to %.0f)", median(values), slices.Min(values), slices.Max(values))
}
