package control

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"github.com/headgate/headgate/internal/fleet"
)

const (
	// followAgain is the delay before following is retried after a failure.
	followAgain = time.Second
	// watchEvery is the minimum, and watchBeat the maximum interval between two messages to a watcher of the fleet.
	watchEvery, watchBeat = time.Second, 5 * time.Second
)

type fleetService struct {
	controlv1connect.UnimplementedFleetServiceHandler

	*Service
}

// setFleet replaces the known fleet.
func (s *Service) setFleet(nodes fleet.Fleet) {
	slices.SortFunc(nodes.Nodes, byName)
	slices.SortFunc(nodes.Lost, func(a, b fleet.LostNode) int { return byName(a.Node, b.Node) })
	s.counts.Set(nodes)
	for _, node := range nodes.Nodes {
		if len(node.Traffic) > 0 {
			s.history.Add(node.ID, node.Traffic, time.Now())
		}
		if len(node.Calls) > 0 {
			s.calls.Add(node.ID, node.Calls, time.Now())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet = nodes
	maps.DeleteFunc(s.missed, func(id string, _ int) bool { return nodes.Silent[id].IsZero() })
	close(s.changed)
	s.changed = make(chan struct{})
}

// followNodes updates the fleet until ctx ends.
func (s *Service) followNodes(ctx context.Context) {
	fleet.FollowNodes(ctx, s.js, fleet.Follower{
		Tenants: true,
		Each:    s.setFleet,
		Ask:     s.askSilent,
		Failed:  s.unfollowed,
	})
}

func (s *Service) unfollowed(err error) {
	s.log.Warn().Err(err).Dur("again_in_ms", followAgain).Msg(
		"receiving announcements of nodes failed, retrying; known nodes stay while they respond",
	)
}

const (
	// askedTogether bounds the silent nodes that are concurrently probed.
	askedTogether = 16
	// missedChecks is the number of consecutive failed probes after which a silent node counts as gone.
	missedChecks = 2
)

// askSilent probes silent nodes.
func (s *Service) askSilent(ctx context.Context, silent []fleet.Node) map[string]fleet.Verdict {
	var (
		asking   errgroup.Group
		answered = make([]bool, len(silent))
	)
	asking.SetLimit(askedTogether)
	for i, node := range silent {
		asking.Go(func() error {
			_, err := s.probe(ctx, node)
			verdict, _ := errors.AsType[*connect.Error](err)
			answered[i] = err == nil || verdict != nil && verdict.IsRemote() // any response counts
			return nil
		})
	}
	_ = asking.Wait() // they return no error
	s.mu.Lock()
	defer s.mu.Unlock()
	verdicts := make(map[string]fleet.Verdict, len(silent))
	for i, node := range silent {
		if answered[i] {
			s.missed[node.ID], verdicts[node.ID] = 0, fleet.Answers
			continue
		}
		verdicts[node.ID] = fleet.Answers // until it has missed another
		if s.missed[node.ID]++; s.missed[node.ID] >= missedChecks {
			verdicts[node.ID] = fleet.Gone
			delete(s.missed, node.ID)
		}
	}
	return verdicts
}

func byName(a, b fleet.Node) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.ID, b.ID))
}

// announced returns the available nodes. The slice must not be changed.
func (s *Service) announced() []fleet.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet.Nodes
}

// node returns the node with the id.
func (s *Service) node(id string) (fleet.Node, bool) {
	for _, n := range s.announced() {
		if n.ID == id {
			return n, true
		}
	}
	return fleet.Node{}, false
}

// snapshot returns the fleet: the nodes' current announcements, the results of recent probes, and recently lost
// nodes.
func (s *Service) snapshot(ctx context.Context) (*controlv1.Fleet, error) {
	answers, err := s.asked.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	lost, silent := s.fleet.Lost, s.fleet.Silent
	s.mu.Unlock()
	out := &controlv1.Fleet{Taken: timestamppb.New(answers.Taken), AgeMs: answers.Age().Milliseconds()}
	if outage, away := s.outage(); away {
		out.AsOf, out.Outage = timestamppb.New(outage.Since), string(outage.Cause)
	}
	for _, answer := range answers.Answers {
		node := answer.Node
		if slices.ContainsFunc(lost, func(l fleet.LostNode) bool { return l.Node.ID == node.ID }) {
			continue // it was available a moment ago
		}
		if now, there := s.node(node.ID); there {
			node = now
		}
		message := nodeMessage(node)
		if last := silent[node.ID]; !last.IsZero() {
			message.LastAnnounced = timestamppb.New(last)
			if answer.Err == nil && !answer.Value && node.Ready { // newer than its last announcement
				message.State, message.Reason = controlv1.NodeState_NODE_STATE_NOT_READY, "its health check reports "+
					"that it accepts no calls: see its /ready and its log"
			}
		}
		message.Answered, message.AnswerMs = answer.Err == nil, float64(answer.Took.Microseconds())/1000
		if answer.Err != nil {
			message.Error = answer.Err.Error()
			out.Silent++
		}
		out.Nodes = append(out.Nodes, message)
	}
	for _, l := range lost {
		message := nodeMessage(l.Node)
		message.State, message.Reason = controlv1.NodeState_NODE_STATE_LOST, ""
		message.Load, message.Lag, message.OpenBreakers = nil, nil, nil
		message.Degraded, message.FailingViews, message.FailingViewCount = nil, nil, 0
		message.LastAnnounced = timestamppb.New(l.LastAnnounced)
		message.Error = "it stopped announcing itself without signing off"
		out.Silent++
		out.Nodes = append(out.Nodes, message)
	}
	return out, nil
}

func nodeMessage(node fleet.Node) *controlv1.Node {
	out := &controlv1.Node{
		Id:               node.ID,
		Kind:             node.Kind.String(),
		Endpoint:         node.Endpoint,
		Version:          node.Version,
		Started:          timestamppb.New(node.Started),
		State:            controlv1.NodeState_NODE_STATE_READY,
		Tenants:          node.Tenants,
		Lag:              node.Lag,
		OpenBreakers:     node.Open,
		Degraded:         node.Degraded,
		ModelRevision:    node.Model,
		ModelPending:     node.ModelPending,
		ModelProblem:     node.ModelProblem,
		FailingViews:     failingMessages(node.FailingViews),
		FailingViewCount: int32(node.FailingViewCount),
		Drained:          node.Drained,
	}
	if !node.Ready {
		out.State, out.Reason = controlv1.NodeState_NODE_STATE_NOT_READY, node.Reason
	}
	if l := node.Load; l != nil {
		out.Load = &controlv1.Load{
			CallsPerSecond:  l.Calls,
			ErrorsPerSecond: l.Errors,
			P50Ms:           l.P50,
			P95Ms:           l.P95,
			P99Ms:           l.P99,
			InFlight:        l.InFlight,
			MemoryBytes:     int64(l.Memory),
			Goroutines:      int64(l.Goroutines),
		}
	}
	return out
}

// GetFleet implements FleetService.
func (s fleetService) GetFleet(ctx context.Context, _ *controlv1.GetFleetRequest) (*controlv1.GetFleetResponse, error) {
	fleet, err := s.snapshot(ctx)
	return &controlv1.GetFleetResponse{Fleet: fleet}, err
}

// WatchFleet implements FleetService.
func (s fleetService) WatchFleet(
	ctx context.Context, _ *controlv1.WatchFleetRequest, stream controlv1connect.FleetServiceWatchFleetServerStream,
) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		fleet, err := s.snapshot(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&controlv1.WatchFleetResponse{Fleet: fleet}); err != nil {
			return err
		}
		// Limit the rate of messages, regardless of the number of changes.
		select {
		case <-time.After(watchEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-time.After(watchBeat):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
