package control

import (
	"fmt"
	"slices"

	"github.com/headgate/headgate/backbone"
)

// placed is a placement as it was read.
type placed struct {
	backbone.Placement

	// Revision is that of the placement, or of its removal; 0: the tenant never had one.
	Revision uint64
	// Exists is false for a tenant that is not placed.
	Exists bool
}

// gate is a condition that a move waits for, which nodes or other moves fulfil.
type gate int

const (
	gateNone     gate = iota
	gateTurn          // no earlier move of the tenant is under way, and none has locked the placement
	gateWarm          // the target takes calls and serves the tenant
	gateReached       // the target answers for the tenant and has applied the goal
	gateRouted        // every gateway routes by the revision action.routing
	gateReleased      // no node that is not in action.keep serves the tenant
)

// write is what an action writes.
type write int

const (
	writeNothing write = iota
	writePlacement
	removePlacement
	writeMove
)

// action is what a move does next: once the gate is open, one write, at the revision that was read.
// So a crash, an answer that is lost, and another control node come between two writes or before
// one, and what was done is found done.
type action struct {
	gate    gate
	routing uint64            // of gateRouted
	keep    func(string) bool // of gateReleased

	write     write
	placement backbone.Placement
	move      move
	// enter is the step that the move enters with the write, "" for none; goal says that the
	// journal's present end becomes its goal.
	enter step
	goal  bool
}

// next returns what the move does next, given the placement that was read after the move. It is
// the whole protocol, and depends on nothing else:
//
//   - A move locks the placement at the revision at which its turn came, and at no other: a control
//     node that stood still since cannot lock it under a move that has ended.
//   - From then until the last write to it, the placement names the move, and no other move and no
//     operator changes it. An abort of a move that may still lock the placement changes its revision.
//   - The move frees the placement when no node but the right one serves the tenant, and ends only
//     when it has found it free. The next move of the tenant waits for that.
//
// Each write is at the revision that was read. A placement that was read at a revision below Seen is
// ignored.
func (m move) next(p placed) action {
	ours := p.Exists && p.Move == m.ID
	switch {
	case m.ended():
		return action{}
	case p.Revision < m.Seen:
		return action{} // a replica that is behind has answered
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
		a.gate, a.goal = gateWarm, true
		return a
	case stepCatching:
		// Little is missing now: what the journal holds at this moment must be applied before calls
		// go to the target, so that no reader goes back behind it.
		a := m.record(stepFenced)
		a.gate, a.goal = gateReached, true
		return a
	case stepFenced:
		switch {
		case p.Node == m.Target:
			m.Flipped, m.Routing, m.Seen = true, p.Revision, p.Revision
			return m.record(stepFlipped)
		case same(p.Placement, m.locked(m.Source, m.others(m.Source))):
			return action{gate: gateReached, write: writePlacement, placement: m.locked(m.Target, m.others(m.Target))}
		}
		return action{} // the move is being aborted, and the target gives the tenant up
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

// begin waits for the move's turn and locks the placement: the target takes the tenant up, and calls
// go where they went.
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
		m.Reason = fmt.Sprintf("tenant %s is on node %s already", m.Tenant, m.Target)
		a.enter = stepAborted
	}
	a.move = m
	return a
}

// retire has the other nodes give the tenant up, and frees the placement last.
func (m move) retire(p placed, ours bool) action {
	kept := func(node string) bool { return node == m.Target }
	switch last := m.locked(m.Target, nil); {
	case ours && !same(p.Placement, last):
		return action{write: writePlacement, placement: last}
	case ours:
		return action{gate: gateReleased, keep: kept, write: writePlacement, placement: backbone.Placement{Node: m.Target}}
	}
	a := m.record(stepDone)
	if p.Exists && p.Node == m.Target && p.Move == "" {
		a.gate, a.keep = gateReleased, kept // an earlier version frees it first
	}
	return a
}

// undo puts everything back, and frees the placement last.
func (m move) undo(p placed, ours bool) action {
	switch {
	case !ours && m.Begun && p.Revision == m.Seen:
		// Another control node may be about to lock the placement: not at the next revision.
		if !p.Exists {
			return action{write: removePlacement}
		}
		return action{write: writePlacement, placement: p.Placement}
	case !ours:
		return m.record(stepAborted)
	case p.Node == m.Target && !m.Flipped:
		// Calls may go to the target without a record of it: the move was aborted at that moment.
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
			gate: gateReleased, keep: func(node string) bool { return node != m.Target },
			write: writePlacement, placement: backbone.Placement{Node: m.Source},
		}
	}
	if m.Flipped || p.Revision != m.Seen {
		// Calls may have gone to the target: another control node may know, and have placed the tenant
		// back. At the revision at which the move has locked the placement, they have not.
		back.gate, back.routing = gateRouted, p.Revision
	}
	return back
}

// abort returns the action that has the move put everything back.
func (m move) abort(reason string) action {
	m.Reason = reason
	return m.record(stepAborting)
}

// record returns the action that writes the move, and has it enter a step unless that is "".
func (m move) record(next step) action {
	return action{write: writeMove, move: m, enter: next}
}

// locked returns the placement on a node, locked by the move.
func (m move) locked(node string, also []string) backbone.Placement {
	return backbone.Placement{Node: node, Also: also, Move: m.ID}
}

// others returns the nodes that follow the tenant during its move, without routed, the node that
// receives its calls.
func (m move) others(routed string) []string {
	switch {
	case m.Source == "":
		return []string{backbone.EveryNode}
	case routed == m.Source:
		return []string{m.Target}
	}
	return []string{m.Source}
}

func same(a, b backbone.Placement) bool {
	return a.Node == b.Node && slices.Equal(a.Also, b.Also) && a.Move == b.Move
}
