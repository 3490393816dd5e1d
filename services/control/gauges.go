package control

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/traffic"
)

// measureTimeout bounds the request for the number of dead letters.
const measureTimeout = 5 * time.Second

// gauge is the state of the platform at a time; nil: it was not measured.
type gauge struct {
	lag, deadLetters, failedViews *int64
	// nodes are the nodes that process events, at most maxGaugeNodes.
	nodes map[string]nodeGauge
	// tenants are the lags of the tenants that nodes have announced, and rest that of the others: 0, or nil if a node
	// has not announced all that have any.
	tenants map[string]int64
	rest    *int64
}

// nodeGauge is the state of a node at a time.
type nodeGauge struct{ lag, failedViews int64 }

// maxGaugeNodes bounds the nodes of a gauge, and so the tenants: each announces [fleet.MaxBehind] at most.
const maxGaugeNodes = 256

// of returns the values of a selection.
func (g gauge) of(tenant, node string) gauge {
	switch {
	case node != "":
		found, known := g.nodes[node]
		if !known {
			return gauge{}
		}
		return gauge{lag: &found.lag, failedViews: &found.failedViews}
	case tenant != "":
		if lag, known := g.tenants[tenant]; known {
			return gauge{lag: &lag}
		}
		return gauge{lag: g.rest}
	}
	return g
}

// gauges are the platform's gauges at the ends of windows. The zero value is ready for use.
type gauges struct {
	mu            sync.Mutex
	shorts, longs map[int64]gauge // by the end of the window
}

// add adds the gauge at the end of a short window, and forgets old ones.
func (g *gauges) add(end int64, measured gauge) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shorts == nil {
		g.shorts, g.longs = map[int64]gauge{}, map[int64]gauge{}
	}
	g.shorts[end] = measured
	if end%int64(traffic.Long/time.Second) == 0 {
		g.longs[end] = measured
	}
	forget(g.shorts, end-traffic.Shorts*int64(traffic.Short/time.Second))
	forget(g.longs, end-traffic.Longs*int64(traffic.Long/time.Second))
}

func forget(all map[int64]gauge, oldest int64) {
	for end := range all {
		if end <= oldest {
			delete(all, end)
		}
	}
}

// at returns the gauge at the end of a window.
func (g *gauges) at(end int64, long bool) gauge {
	g.mu.Lock()
	defer g.mu.Unlock()
	if long {
		return g.longs[end]
	}
	return g.shorts[end]
}

// last returns the gauge at the end of the last window. While that window is being measured, it returns the gauge of
// the window before.
func (g *gauges) last(now time.Time) gauge {
	end := now.Truncate(traffic.Short)
	if measured := g.at(end.Unix(), false); measured.lag != nil {
		return measured
	}
	return g.at(end.Add(-traffic.Short).Unix(), false)
}

// measureAll measures the platform at the end of each window until ctx ends.
func (s *Service) measureAll(ctx context.Context) {
	for {
		end := time.Now().Truncate(traffic.Short).Add(traffic.Short)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(end)):
			s.gauges.add(end.Unix(), s.measure(ctx))
		}
	}
}

// add adds a node, and what it has announced of tenants.
func (g *gauge) add(node *fleet.Node) {
	if len(g.nodes) >= maxGaugeNodes {
		g.tenants, g.rest = nil, nil
		return
	}
	g.nodes[node.ID] = nodeGauge{lag: *node.Lag, failedViews: int64(node.FailingViewCount)}
	if g.tenants == nil {
		return
	}
	for _, behind := range node.Behind[:min(len(node.Behind), fleet.MaxBehind)] {
		g.tenants[behind.Tenant] += behind.Lag
	}
}

// withhold removes the tenants whose lag at a node is unknown, because the node has announced others alone.
func (g *gauge) withhold(node *fleet.Node) {
	if node.Lag == nil || node.BehindCount != nil && *node.BehindCount <= len(node.Behind) {
		return
	}
	g.rest = nil
	served := make(map[string]bool, len(node.Tenants))
	for _, tenant := range node.Tenants {
		served[tenant] = true
	}
	for _, behind := range node.Behind {
		delete(served, behind.Tenant)
	}
	maps.DeleteFunc(g.tenants, func(tenant string, _ int64) bool { return served[tenant] })
}

// gaugeOf returns what nodes have announced.
func gaugeOf(nodes []fleet.Node) (out gauge) {
	for _, node := range nodes {
		if node.Lag == nil {
			continue
		}
		if out.lag == nil {
			out.lag, out.failedViews, out.rest = new(int64), new(int64), new(int64)
			out.nodes, out.tenants = map[string]nodeGauge{}, map[string]int64{}
		}
		*out.lag += *node.Lag
		*out.failedViews += int64(node.FailingViewCount)
		out.add(&node)
	}
	for _, node := range nodes {
		out.withhold(&node)
	}
	return out
}

// measure returns the platform's gauges.
func (s *Service) measure(ctx context.Context) gauge {
	out := gaugeOf(s.announced())
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	if stream, err := s.js.Stream(ctx, streams.DeadLetters); err == nil {
		letters := int64(min(stream.CachedInfo().State.Msgs, 1<<62))
		out.deadLetters = &letters
	}
	return out
}
