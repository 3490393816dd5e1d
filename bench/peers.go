package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

type peersCommand struct {
	Rounds  int           `default:"15" help:"Rounds, in which the contenders alternate."`
	Length  time.Duration `default:"500ms" help:"Length of a contender's turn."`
	Callers int           `default:"32" help:"Concurrent callers."`
	Plots   string        `type:"path" help:"Directory for plots (PNG)."`
	Match   string        `help:"Part of the titles of the tables to make, such as gRPC; all if there is none."`
	Only    []string      `help:"Contenders to run, such as headgate and vanguard; all if none is named."`
	Earlier string        `help:"Binary of an earlier version of Headgate, which is a contender too." type:"existingfile"`
}

// contestant is a path from a client to the upstream by one protocol.
type contestant struct {
	name string
	do   map[string]call // by view
	p    *process
	rest bool // one of our processes, whose CPU and memory are comparable
}

// measured contains the results of a contestant for one view.
type measured struct {
	rate, cpu, allocs []float64 // by round: calls/s, µs of the process per call, objects per call
	peak              float64   // MiB
	// Times since a call was due, by round: at half of the highest rate of the contestant, and
	// at half of that of the slowest one in the table.
	half, same []*hdrhistogram.Histogram
}

// protocol is a protocol between client and contestant, and the contestants that use it.
type protocol struct {
	name  string
	group []*contestant
}

// Run measures and prints tables.
func (c *peersCommand) Run(ctx context.Context) (err error) {
	a, err := startArena(ctx, "headgate", "grpcgateway")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	a.paths[earlier] = c.Earlier
	protocols, err := a.protocols(ctx, c.Only)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n\n", a.versions(ctx))
	var all []plotted
	for _, p := range protocols {
		for _, view := range []string{"one", "hundred"} {
			title := fmt.Sprintf("%s, %s", p.name, map[string]string{"one": "1 row", "hundred": "100 rows"}[view])
			if !strings.Contains(title, c.Match) {
				continue
			}
			results, err := c.measure(ctx, p, view)
			if err != nil {
				return err
			}
			printTable(title, p.group, results)
			all = append(all, plotted{title, p.group, results})
		}
	}
	if c.Plots == "" {
		return nil
	}
	return plotAll(c.Plots, all)
}

// measure measures the highest rate of each contestant in turn, and then the latencies of each at half of its highest
// rate and of all at the same rate.
func (c *peersCommand) measure(ctx context.Context, p protocol, view string) (map[string]*measured, error) {
	results := map[string]*measured{}
	for _, one := range p.group {
		results[one.name] = &measured{}
		if _, err := saturate(ctx, one.do[view], c.Callers, c.Length/3); err != nil { // warm
			return nil, fmt.Errorf("%s: %w", one.name, err)
		}
	}
	for round := range c.Rounds {
		for _, one := range turns(p.group, round) {
			m := results[one.name]
			used, err := one.p.cpu()
			if err != nil {
				return nil, err
			}
			objects, told, err := one.p.mallocs(ctx)
			if err != nil {
				return nil, err
			}
			began := time.Now()
			made, err := saturate(ctx, one.do[view], c.Callers, c.Length)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", one.name, err)
			}
			m.rate = append(m.rate, float64(made)/time.Since(began).Seconds())
			now, err := one.p.cpu()
			if err != nil {
				return nil, err
			}
			m.cpu = append(m.cpu, float64((now-used).Microseconds())/float64(made))
			if told {
				after, _, err := one.p.mallocs(ctx)
				if err != nil {
					return nil, err
				}
				m.allocs = append(m.allocs, float64(after-objects)/float64(made))
			}
		}
		fmt.Fprintf(os.Stderr, "%s, %s: round %d of %d\n", p.name, view, round+1, c.Rounds)
	}
	slowest := math.Inf(1)
	for _, m := range results {
		slowest = min(slowest, median(m.rate))
	}
	for round := range c.Rounds {
		for _, one := range turns(p.group, round) {
			m := results[one.name]
			for _, load := range []struct {
				rounds *[]*hdrhistogram.Histogram
				rate   float64
			}{{&m.half, median(m.rate) / 2}, {&m.same, slowest / 2}} {
				times, err := paced(ctx, one.do[view], 4*c.Callers, load.rate, c.Length)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", one.name, err)
				}
				*load.rounds = append(*load.rounds, times)
			}
		}
	}
	for _, one := range p.group {
		peak, err := one.p.peak()
		if err != nil {
			return nil, err
		}
		results[one.name].peak = float64(peak) / (1 << 20)
	}
	return results, nil
}

// turns returns the order of the contestants in a round: each contestant is the first in some rounds.
func turns(group []*contestant, round int) []*contestant {
	first := round % len(group)
	return slices.Concat(group[first:], group[:first])
}

// printTable prints the results. Two contestants are compared by the median of the rounds' ratios, since within a round
// both run under the same conditions.
func printTable(title string, group []*contestant, results map[string]*measured) {
	fmt.Printf(
		"**%s**\n\n| | calls/s | CPU µs per call | Headgate's share of it | objects per call | p50 / p99 / p99.9 at "+
			"half | the same at the slowest's half | p99 added to direct there | peak MiB "+
			"|\n|---|---|---|---|---|---|---|---|---|\n",
		title,
	)
	ours, direct := results["headgate"], results["direct"]
	for _, one := range group {
		m := results[one.name]
		share, added, objects := "–", "–", "–"
		if one.name != "headgate" && !one.rest && ours != nil {
			share = within("%.2f", byRound(ours.cpu, m.cpu, func(x, y float64) float64 { return x / y }))
		}
		if one.name != "direct" && direct != nil {
			added = within(
				"%.1f",
				byRound(m.same, direct.same,
					func(x, y *hdrhistogram.Histogram) float64 { return ms(x, 99) - ms(y, 99) }),
			) + " ms"
		}
		if len(m.allocs) > 0 {
			objects = fmt.Sprintf("%.0f", median(m.allocs))
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %s | %s | %.0f |\n", one.name,
			within("%.0f", m.rate), within("%.0f", m.cpu), share, objects, quantiles(m.half), quantiles(m.same), added,
			m.peak)
	}
	fmt.Println()
}

// byRound compares two contestants round by round.
func byRound[T any](x, y []T, compare func(x, y T) float64) []float64 {
	all := make([]float64, len(x))
	for round := range x {
		all[round] = compare(x[round], y[round])
	}
	return all
}

// within formats the median of the rounds, and the range of the middle half of them.
func within(format string, rounds []float64) string {
	sorted := slices.Sorted(slices.Values(rounds))
	return fmt.Sprintf(format+" ("+format+" to "+format+")", median(sorted), sorted[len(sorted)/4],
		sorted[len(sorted)-1-len(sorted)/4])
}

// quantiles formats latencies: the medians of the rounds' p50 and p99, so that a single stall of the machine does not
// decide, and the p99.9 of all rounds together, since a round has too few values for it.
func quantiles(rounds []*hdrhistogram.Histogram) string {
	all := newHistogram()
	var middle, high []float64
	for _, times := range rounds {
		all.Merge(times)
		middle, high = append(middle, ms(times, 50)), append(high, ms(times, 99))
	}
	return fmt.Sprintf("%.1f / %.1f / %.1f ms", median(middle), median(high), ms(all, 99.9))
}
