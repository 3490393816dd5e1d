package control

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"github.com/headgate/headgate/internal/fleet"
)

// step is a step of a move.
type step string

// The steps of a move, in order; the last two are those of an aborted move.
const (
	stepPlanned   step = "planned"
	stepWarming   step = "warming"
	stepCatching  step = "catching up"
	stepFenced    step = "fenced"
	stepFlipped   step = "flipped"
	stepVerifying step = "verifying"
	stepRetiring  step = "retiring"
	stepDone      step = "done"
	stepAborting  step = "aborting"
	stepAborted   step = "aborted"
)

var stepMessages = map[step]controlv1.MoveStep{
	stepPlanned:   controlv1.MoveStep_MOVE_STEP_PLANNED,
	stepWarming:   controlv1.MoveStep_MOVE_STEP_WARMING,
	stepCatching:  controlv1.MoveStep_MOVE_STEP_CATCHING_UP,
	stepFenced:    controlv1.MoveStep_MOVE_STEP_FENCED,
	stepFlipped:   controlv1.MoveStep_MOVE_STEP_FLIPPED,
	stepVerifying: controlv1.MoveStep_MOVE_STEP_VERIFYING,
	stepRetiring:  controlv1.MoveStep_MOVE_STEP_RETIRING,
	stepDone:      controlv1.MoveStep_MOVE_STEP_DONE,
	stepAborting:  controlv1.MoveStep_MOVE_STEP_ABORTING,
	stepAborted:   controlv1.MoveStep_MOVE_STEP_ABORTED,
}

// move is the move of a tenant to another node, as the bucket stores it.
type move struct {
	ID     string          `json:"id"`
	Tenant string          `json:"tenant"`
	Kind   contextkit.Kind `json:"kind"`
	// Source is the node that the tenant is placed on when the move's turn comes, "" if it is not placed.
	Source string `json:"source,omitempty"`
	Target string `json:"target"`
	By     string `json:"by,omitempty"`

	Step    step   `json:"stage"`
	Waiting string `json:"waiting,omitempty"`
	// Begun is set when the move's turn has come: it may lock the placement at the KV revision Seen.
	Begun bool `json:"begun,omitempty"`
	// Seen is the newest KV revision of the placement that the move has acted on. A read that returns an older one is
	// out of date.
	Seen uint64 `json:"seen,omitempty"`
	// FenceSequence is the journal's end that the target must apply, and Checkpoint what it has applied.
	FenceSequence uint64 `json:"goal,omitempty"`
	Checkpoint    uint64 `json:"applied,omitempty"`
	// Routing is the KV revision of the placement that gateways must route by.
	Routing uint64 `json:"routing,omitempty"`
	Reason  string `json:"reason,omitempty"` // why it is aborted
	// Flipped is set if calls may have gone to the target.
	Flipped bool `json:"flipped,omitempty"`

	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	History []entered `json:"history"`

	// Owner is the control node that drives the move until Lease. Leases only save work: control nodes that drive the
	// same move exclude each other by compare-and-set.
	Owner string    `json:"owner,omitempty"`
	Lease time.Time `json:"lease"`
}

// entered is a step that was entered.
type entered struct {
	Step step      `json:"stage"`
	Time time.Time `json:"time"`
	Node string    `json:"node"`
}

// ended reports whether the move has ended.
func (m *move) ended() bool { return m.Step == stepDone || m.Step == stepAborted }

// enter records that a control node has entered a step.
func (m *move) enter(next step, node string) {
	m.Step, m.Waiting, m.Updated = next, "", time.Now().UTC()
	m.History = append(slices.Clip(m.History), entered{Step: next, Time: m.Updated, Node: node})
}

// tenant returns the move's tenant, which was validated when the move was started.
func (m *move) tenant() contextkit.TenantID {
	tenant, _ := contextkit.ParseTenantID(m.Tenant)
	return tenant
}

// placementKey returns the key of the placement that the move changes. Moves with the same key queue.
func (m *move) placementKey() string { return fleet.PlacementKey(m.Kind, m.tenant()) }

// before reports whether the move precedes another of the same placement in the queue.
func (m *move) before(other *move) bool {
	if !m.Started.Equal(other.Started) {
		return m.Started.Before(other.Started)
	}
	return m.ID < other.ID
}

func (m *move) message() *controlv1.Move {
	out := &controlv1.Move{
		Id:         m.ID,
		TenantId:   m.Tenant,
		Kind:       m.Kind.String(),
		Source:     m.Source,
		Target:     m.Target,
		Step:       stepMessages[m.Step],
		WaitingFor: m.Waiting,
		Reason:     m.Reason,
		By:         m.By,
		Started:    timestamppb.New(m.Started),
		Updated:    timestamppb.New(m.Updated),
	}
	if m.FenceSequence > 0 {
		checkpoint, fence := int64(m.Checkpoint), int64(m.FenceSequence)
		out.Checkpoint, out.FenceSequence = &checkpoint, &fence
	}
	for h := range slices.Values(m.History) {
		out.History = append(out.History,
			&controlv1.MoveHistory{Step: stepMessages[h.Step], Time: timestamppb.New(h.Time), Node: h.Node})
	}
	return out
}
