package control

import (
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	controlv1 "github.com/headgate/headgate/gen/control/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// stage is where a move stands.
type stage string

const (
	stagePlanned   stage = "planned"
	stageWarming   stage = "warming"
	stageCatching  stage = "catching up"
	stageFenced    stage = "fenced"
	stageFlipped   stage = "flipped"
	stageVerifying stage = "verifying"
	stageRetiring  stage = "retiring"
	stageDone      stage = "done"
	stageAborting  stage = "aborting"
	stageAborted   stage = "aborted"
)

var stageMessages = map[stage]controlv1.RebalanceStep{
	stagePlanned:   controlv1.RebalanceStep_REBALANCE_STEP_PLANNED,
	stageWarming:   controlv1.RebalanceStep_REBALANCE_STEP_WARMING,
	stageCatching:  controlv1.RebalanceStep_REBALANCE_STEP_CATCHING_UP,
	stageFenced:    controlv1.RebalanceStep_REBALANCE_STEP_FENCED,
	stageFlipped:   controlv1.RebalanceStep_REBALANCE_STEP_FLIPPED,
	stageVerifying: controlv1.RebalanceStep_REBALANCE_STEP_VERIFYING,
	stageRetiring:  controlv1.RebalanceStep_REBALANCE_STEP_RETIRING,
	stageDone:      controlv1.RebalanceStep_REBALANCE_STEP_DONE,
	stageAborting:  controlv1.RebalanceStep_REBALANCE_STEP_ABORTING,
	stageAborted:   controlv1.RebalanceStep_REBALANCE_STEP_ABORTED,
}

// move is a tenant's way from one node to another, as the bucket keeps it.
type move struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Kind   string `json:"kind"`
	Source string `json:"source,omitempty"` // "": it was not placed
	Target string `json:"target"`
	By     string `json:"by,omitempty"`

	Stage   stage  `json:"stage"`
	Waiting string `json:"waiting,omitempty"`
	// Goal is the journal's sequence that the target must have applied.
	Goal    uint64 `json:"goal,omitempty"`
	Applied uint64 `json:"applied,omitempty"`
	// Routing is the revision of the placement that gateways must have heard of.
	Routing uint64 `json:"routing,omitempty"`
	Reason  string `json:"reason,omitempty"` // why it is aborted
	// Flipped says that calls may have gone to the target.
	Flipped bool `json:"flipped,omitempty"`

	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"`
	History []entered `json:"history"`

	// Owner is the control node that drives it, until Lease.
	Owner string    `json:"owner,omitempty"`
	Lease time.Time `json:"lease"`
}

// entered is a stage that was entered.
type entered struct {
	Stage stage     `json:"stage"`
	Time  time.Time `json:"time"`
	Node  string    `json:"node"`
}

// ended reports whether nothing more happens to the move.
func (m *move) ended() bool { return m.Stage == stageDone || m.Stage == stageAborted }

// enter moves on to a stage.
func (m *move) enter(next stage, node string) {
	m.Stage, m.Waiting, m.Updated = next, "", time.Now().UTC()
	m.History = append(m.History, entered{Stage: next, Time: m.Updated, Node: node})
}

// tenant returns the move's tenant, which was parsed when it was begun.
func (m *move) tenant() contextkit.TenantID {
	tenant, _ := contextkit.ParseTenantID(m.Tenant)
	return tenant
}

// others are the nodes that follow the tenant during its move, without routed, the node that
// receives its calls.
func (m *move) others(routed string) []string {
	switch {
	case m.Source == "":
		return []string{"*"}
	case routed == m.Source:
		return []string{m.Target}
	}
	return []string{m.Source}
}

func (m *move) message() *controlv1.Rebalance {
	out := &controlv1.Rebalance{
		Id: m.ID, TenantId: m.Tenant, Kind: m.Kind, Source: m.Source, Target: m.Target, Step: stageMessages[m.Stage], WaitingFor: m.Waiting,
		Reason: m.Reason, By: m.By, Started: timestamppb.New(m.Started), Updated: timestamppb.New(m.Updated),
	}
	if m.Goal > 0 {
		applied, goal := int64(m.Applied), int64(m.Goal) //nolint:gosec // far below 2^63
		out.Applied, out.Goal = &applied, &goal
	}
	for h := range slices.Values(m.History) {
		out.History = append(out.History, &controlv1.RebalanceHistory{Step: stageMessages[h.Stage], Time: timestamppb.New(h.Time), Node: h.Node})
	}
	return out
}
