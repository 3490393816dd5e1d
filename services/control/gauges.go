package control

import (
	"context"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/traffic"
)

// measureTimeout bounds the request for the number of dead letters.
const measureTimeout = 5 * time.Second

// gauge is the state of the platform at a time; nil: it was not measured.
type gauge struct{ lag, deadLetters, failedViews *int64 }

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

// measure returns the platform's gauges.
func (s *Service) measure(ctx context.Context) gauge {
	var out gauge
	s.mu.Lock()
	nodes := s.fleet.Nodes
	s.mu.Unlock()
	for _, node := range nodes {
		if node.Lag == nil {
			continue
		}
		if out.lag == nil {
			out.lag, out.failedViews = new(int64), new(int64)
		}
		*out.lag += *node.Lag
		*out.failedViews += int64(node.FailingViewCount)
	}
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	if stream, err := s.js.Stream(ctx, streams.DeadLetters); err == nil {
		letters := int64(min(stream.CachedInfo().State.Msgs, 1<<62))
		out.deadLetters = &letters
	}
	return out
}
