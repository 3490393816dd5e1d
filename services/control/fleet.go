package control

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/backbone"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/gen/control/v1/controlv1connect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// followAgain is the wait before something is followed again after a failure.
	followAgain = time.Second
	// watchEvery is how often a watcher of the fleet is told at most, and watchBeat
	// how often at least.
	watchEvery, watchBeat = time.Second, 5 * time.Second
)

type fleetService struct {
	controlv1connect.UnimplementedFleetServiceHandler

	*Service
}

// setNodes puts other nodes in the place of those that were known.
func (s *Service) setNodes(nodes []backbone.Node, lost []backbone.LostNode) {
	slices.SortFunc(nodes, byName)
	slices.SortFunc(lost, func(a, b backbone.LostNode) int { return byName(a.Node, b.Node) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fleet, s.lost = nodes, lost
	close(s.changed)
	s.changed = make(chan struct{})
}

// followNodes keeps the fleet until ctx ends.
func (s *Service) followNodes(ctx context.Context) {
	for ctx.Err() == nil {
		err := backbone.FollowNodes(ctx, s.js, s.setNodes)
		if err != nil && ctx.Err() == nil {
			s.log.Error().Err(err).Msg("nodes are not followed; those known stay, and it is tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(followAgain):
		}
	}
}

func byName(a, b backbone.Node) int {
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.ID, b.ID))
}

// announced returns the nodes that are there. The slice must not be changed.
func (s *Service) announced() []backbone.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fleet
}

// node returns the node with the id.
func (s *Service) node(id string) (backbone.Node, bool) {
	for _, n := range s.announced() {
		if n.ID == id {
			return n, true
		}
	}
	return backbone.Node{}, false
}

// snapshot returns the fleet: what nodes say of themselves now, what came of asking
// them a moment ago, and those that were lost lately.
func (s *Service) snapshot(ctx context.Context) (*controlv1.Fleet, error) {
	answers, err := s.asked.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	lost := s.lost
	s.mu.Unlock()
	out := &controlv1.Fleet{Taken: timestamppb.New(answers.Taken), AgeMs: answers.Age().Milliseconds()}
	for _, answer := range answers.Answers {
		node := answer.Node
		if slices.ContainsFunc(lost, func(l backbone.LostNode) bool { return l.Node.ID == node.ID }) {
			continue // it was there a moment ago
		}
		if now, there := s.node(node.ID); there {
			node = now
		}
		message := nodeMessage(node)
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
		message.Degraded = nil
		message.LastHeard = timestamppb.New(l.Heard)
		message.Error = "it fell silent without a goodbye"
		out.Silent++
		out.Nodes = append(out.Nodes, message)
	}
	return out, nil
}

func nodeMessage(node backbone.Node) *controlv1.Node {
	out := &controlv1.Node{
		Id: node.ID, Kind: node.Kind, Endpoint: node.Endpoint, Version: node.Version, Started: timestamppb.New(node.Started),
		State: controlv1.NodeState_NODE_STATE_READY, Tenants: node.Tenants, Lag: node.Lag, OpenBreakers: node.Open,
		Degraded: node.Degraded,
	}
	if !node.Ready {
		out.State, out.Reason = controlv1.NodeState_NODE_STATE_NOT_READY, node.Reason
	}
	if l := node.Load; l != nil {
		out.Load = &controlv1.Load{
			CallsPerSecond: l.Calls, ErrorsPerSecond: l.Errors, P50Ms: l.P50, P95Ms: l.P95, P99Ms: l.P99,
			InFlight: l.InFlight, MemoryBytes: int64(l.Memory), Goroutines: int64(l.Goroutines), //nolint:gosec // far below 2^63
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
func (s fleetService) WatchFleet(ctx context.Context, _ *controlv1.WatchFleetRequest, stream controlv1connect.FleetServiceWatchFleetServerStream) error {
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
		// Not more often than that, however much changes.
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
