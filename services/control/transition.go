package control

import (
	"fmt"
	"slices"

	"github.com/headgate/headgate/internal/fleet"
)

// placed is a placement as it was read.
type placed struct {
	fleet.Placement

	// Revision is the KV revision of the placement, or of its removal; 0: the tenant never had one.
	Revision uint64
	// Exists is false for a tenant that is not placed.
	Exists bool
}

// gate is a condition that a move waits for, and that nodes or other moves satisfy.
type gate int

const (
	gateNone     gate = iota
	gateTurn          // no earlier move of the tenant is unfinished, and none has locked the placement
	gateWarm          // the target accepts calls and serves the tenant
	gateReached       // the target responds for the tenant and has applied the fence sequence
	gateRouted        // every gateway routes by the KV revision action.routing
	gateReleased      // no node that is not in action.keep serves the tenant
)

// write is the kind of write that an action makes.
type write int

const (
	writeNothing write = iota
	writePlacement
	removePlacement
	writeMove
)

// action is the next action of a move: when the gate is open, one write on the condition that the KV revision is the
// one that was read. A crash, a lost response or another control node can thus only intervene between two writes, and
// the next attempt finds the earlier writes done.
type action struct {
	gate    gate
	routing uint64            // for gateRouted
	keep    func(string) bool // for gateReleased

	write     write
	placement fleet.Placement
	move      move
	// enter is the step that the move enters with the write; "": none. fence is set if the write also stores the
	// current end of the journal as the fence sequence.
	enter step
	fence bool
}

// next returns the next action of the move, given a placement that was read after the move. It is the whole protocol,
// and depends on nothing else:
//
//   - A move locks the placement only at the KV revision at which its turn came, so that a control
//     node that was suspended cannot lock it under a move that has ended.
//   - From then until the last write to it, the placement names the move, and no other move and no
//     operator changes it. An abort of a move that may still lock the placement changes its KV revision.
//   - The move unlocks the placement when only the right node serves the tenant, and ends only
//     when it has found it unlocked. The next move of the tenant waits for that.
//
// Each write is at the KV revision that was read. A placement that was read at a KV revision below Seen is ignored.
func (m move) next(p placed) action {
	ours := p.Exists && p.Move == m.ID
	switch {
	case m.ended():
		return action{}
	case p.Revision < m.Seen:
		return action{} // read from a replica that lags behind
	case m.Step == stepPlanned:
		return m.begin(p, ours)
	case m.Step == stepAborting:
		return m.undo(p, ours)
	case m.Step == stepRetiring:
		return m.retire(p, ours)
	case !ours:
		return m.abort("the tenant's placement was changed during the move")
	}
	switch m.Step {
	case stepWarming:
		a := m.record(stepCatching)
		a.gate, a.fence = gateWarm, true
		return a
	case stepCatching:
		// The target has nearly caught up. It must apply the current end of the journal before it receives calls, so
		// that no reader sees an earlier state than before.
		a := m.record(stepFenced)
		a.gate, a.fence = gateReached, true
		return a
	case stepFenced:
		switch {
		case p.Node == m.Target:
			m.Flipped, m.Routing, m.Seen = true, p.Revision, p.Revision
			return m.record(stepFlipped)
		case same(p.Placement, m.locked(m.Source, m.others(m.Source))):
			return action{gate: gateReached, write: writePlacement, placement: m.locked(m.Target, m.others(m.Target))}
		}
		return action{} // another control node is aborting the move: the target releases the tenant
	case stepFlipped:
		a := m.record(stepVerifying)
		a.gate, a.routing = gateRouted, m.Routing
		return a
	case stepVerifying:
		a := m.record(stepRetiring)
		a.gate = gateReached
		return a
	}
	return action{} // a step of a newer version
}

// begin waits for the move's turn and locks the placement. The target then acquires the tenant; routing does not
// change.
func (m move) begin(p placed, ours bool) action {
	switch {
	case ours:
		m.Seen = p.Revision
		return m.record(stepWarming)
	case m.Begun && p.Revision == m.Seen:
		return action{write: writePlacement, placement: m.locked(m.Source, m.others(m.Source))}
	}
	a := action{gate: gateTurn, write: writeMove}
	m.Begun, m.Seen, m.Source = true, p.Revision, p.Node
	if p.Node == m.Target {
		m.Reason = fmt.Sprintf("tenant %s is already on node %s", m.Tenant, m.Target)
		a.enter = stepAborted
	}
	a.move = m
	return a
}

// retire makes the other nodes release the tenant, and unlocks the placement last.
func (m move) retire(p placed, ours bool) action {
	kept := func(node string) bool { return node == m.Target }
	switch last := m.locked(m.Target, nil); {
	case ours && !same(p.Placement, last):
		return action{write: writePlacement, placement: last}
	case ours:
		return action{
			gate:      gateReleased,
			keep:      kept,
			write:     writePlacement,
			placement: fleet.Placement{Node: m.Target},
		}
	}
	a := m.record(stepDone)
	if p.Exists && p.Node == m.Target && p.Move == "" {
		a.gate, a.keep = gateReleased, kept // an earlier version unlocks before the release
	}
	return a
}

// undo restores the previous state, and unlocks the placement last.
func (m move) undo(p placed, ours bool) action {
	switch {
	case !ours && m.Begun && p.Revision == m.Seen:
		// Another control node may be about to lock the placement. This write changes its KV revision, so that the
		// lock fails.
		if !p.Exists {
			return action{write: removePlacement}
		}
		return action{write: writePlacement, placement: p.Placement}
	case !ours:
		return m.record(stepAborted)
	case p.Node == m.Target && !m.Flipped:
		// The placement already routes calls to the target, but the move was aborted before it recorded that.
		m.Flipped, m.Seen = true, p.Revision
		return m.record("")
	case p.Node == m.Target:
		return action{write: writePlacement, placement: m.locked(m.Source, m.others(m.Source))}
	}
	back := action{write: writePlacement, placement: m.locked(m.Source, nil)}
	switch {
	case m.Source == "":
		back = action{write: removePlacement}
	case same(p.Placement, back.placement):
		return action{
			gate:      gateReleased,
			keep:      func(node string) bool { return node != m.Target },
			write:     writePlacement,
			placement: fleet.Placement{Node: m.Source},
		}
	}
	if m.Flipped || p.Revision != m.Seen {
		// Calls may have been routed to the target, even if this record does not show it: another control node may
		// have restored the placement. They have not if the placement still has the KV revision of the lock (Seen).
		back.gate, back.routing = gateRouted, p.Revision
	}
	return back
}

// abort returns the action that makes the move restore the previous state.
func (m move) abort(reason string) action {
	m.Reason = reason
	return m.record(stepAborting)
}

// record returns the action that writes the move and enters a step; "": no step.
func (m move) record(next step) action {
	return action{write: writeMove, move: m, enter: next}
}

// locked returns the placement on a node, locked by the move.
func (m move) locked(node string, also []string) fleet.Placement {
	return fleet.Placement{Node: node, Also: also, Move: m.ID}
}

// others returns the nodes, other than routed, that follow the tenant during its move. routed is the node that receives
// the tenant's calls.
func (m move) others(routed string) []string {
	switch {
	case m.Source == "":
		return []string{fleet.EveryNode}
	case routed == m.Source:
		return []string{m.Target}
	}
	return []string{m.Source}
}

func same(a, b fleet.Placement) bool {
	return a.Node == b.Node && slices.Equal(a.Also, b.Also) && a.Move == b.Move
}
