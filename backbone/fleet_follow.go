package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// silence is how long a node may not announce itself before it is silent.
	silence = MissedHeartbeats * Heartbeat
	// speech is how long after an announcement nodes can still be heard: longer than a heartbeat,
	// and so much shorter than silence that it ends before the first node is silent.
	speech = 3 * Heartbeat / 2
	// lostKept is how long a lost node is remembered, and maxLost bounds their number.
	lostKept = 24 * time.Hour
	maxLost  = 256
	// heardBuffer bounds the announcements that have arrived and have not been read.
	heardBuffer = 4096
)

// Fleet is what a follower knows of the nodes.
type Fleet struct {
	// Nodes are the nodes that are there, in no order, each by its last announcement: those that
	// announce themselves, and silent ones that are not known to be gone.
	Nodes []Node
	// Silent has those of Nodes that have not announced themselves for [MissedHeartbeats], and
	// when they did last, by id.
	Silent map[string]time.Time
	// Lost are nodes that fell silent without a goodbye and do not answer, for a day or until
	// they are back, say goodbye, or another node of their kind comes under a new id.
	Lost []LostNode
	// Heard is when the last announcement of any node arrived, zero for never.
	Heard time.Time
}

// LostNode is a node that fell silent without a goodbye.
type LostNode struct {
	// Node is its last announcement, and Heard when that arrived.
	Node  Node
	Heard time.Time
}

// Verdict is what a follower knows of a silent node by other means than announcements.
type Verdict int

// Verdicts.
const (
	// Unknown: the node has not been asked. It is lost if other nodes announce themselves,
	// since it could then too.
	Unknown Verdict = iota
	// Answers: the node answers, so it is not lost, however long it is silent: NATS, or its way
	// to it, is at fault.
	Answers
	// Gone: the node does not answer. It is lost.
	Gone
)

// Follower is told of nodes.
type Follower struct {
	// Tenants says that [Node.Tenants] is to be filled in.
	Tenants bool
	// Each is called with all nodes whenever they change.
	Each func(Fleet)
	// Ask returns the verdicts on silent nodes, by id, within a heartbeat; nil: all are
	// [Unknown]. It is called once per heartbeat while nodes are silent.
	Ask func(ctx context.Context, silent []Node) map[string]Verdict
	// Failed is called when nodes cannot be followed, once until they can again; following is
	// attempted again each second, and the nodes known last stay.
	Failed func(error)
}

// FollowNodes follows the nodes' announcements until ctx ends. That a node is not heard does not
// remove it: NATS may be away, its bucket full or without a leader. It leaves by its goodbye, or
// when it is silent and the follower's verdict is that it is gone. Announcements are received as
// they are published, stored or not, and from the bucket, which has those of before.
func FollowNodes(ctx context.Context, js jetstream.JetStream, f Follower) {
	s := &following{js: js, follower: f, known: map[string]*heard{}, lost: map[string]LostNode{}, served: servedLists{nodes: map[string]*servedList{}}}
	for failed := false; ctx.Err() == nil; {
		err := s.follow(ctx, func() { failed = false })
		if err != nil && ctx.Err() == nil && !failed && f.Failed != nil {
			failed = true
			f.Failed(err)
		}
		s.wait(ctx, followAgain)
	}
}

// following is the state of FollowNodes.
type following struct {
	js       jetstream.JetStream
	follower Follower

	known    map[string]*heard
	lost     map[string]LostNode
	served   servedLists
	complete bool      // what the buckets had at first has been read
	changed  bool      // since the follower was told
	heard    time.Time // any node
	since    time.Time // from when on nodes have been heard without a pause of [silence]
	asked    time.Time // silent nodes
}

// heard is the last announcement of a node.
type heard struct {
	node     Node
	at       time.Time // by our clock
	said     string
	revision uint64 // in the bucket; 0: not stored yet, as far as is known
	silent   bool
}

// follow follows until the watch ends. began is called when the nodes are followed.
func (s *following) follow(ctx context.Context, began func()) error {
	bucket, err := s.js.KeyValue(ctx, BucketNodes)
	if err != nil {
		return fmt.Errorf("backbone: open bucket %s: %w", BucketNodes, err)
	}
	updates, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("backbone: follow nodes: %w", err)
	}
	defer func() { _ = updates.Stop() }()    // it ends with ctx anyway
	var lists <-chan jetstream.KeyValueEntry // nil: they are not needed
	if s.follower.Tenants {
		watcher, err := s.watchServed(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = watcher.Stop() }() // it ends with ctx anyway
		lists = watcher.Updates()
	}
	listed := lists == nil
	announced := false
	published := make(chan *nats.Msg, heardBuffer)
	direct, err := s.js.Conn().ChanSubscribe(nodesSubject+"*", published)
	if err != nil {
		return fmt.Errorf("backbone: follow nodes: %w", err)
	}
	defer func() { _ = direct.Unsubscribe() }() // the connection has ended if it fails
	began()
	ticker := time.NewTicker(Heartbeat / 4)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case entry, open := <-updates.Updates():
			if !open && ctx.Err() != nil {
				return nil
			}
			if !open {
				return errors.New("backbone: follow nodes: the watch has ended")
			}
			if entry == nil {
				announced = true // all that were there before are known
				s.complete, s.changed = s.complete || listed, true
			} else {
				s.take(entry.Key(), entry.Value(), entry.Revision(), entry.Operation() != jetstream.KeyValuePut)
			}
		case entry, open := <-lists:
			switch {
			case !open && ctx.Err() != nil:
				return nil
			case !open:
				return errors.New("backbone: follow nodes: the watch of their tenants has ended")
			case entry == nil:
				listed = true
				s.complete, s.changed = s.complete || announced, true
			default:
				s.changed = s.known[s.served.take(entry)] != nil || s.changed
			}
		case msg := <-published:
			s.take(strings.TrimPrefix(msg.Subject, nodesSubject), msg.Data, 0, msg.Header.Get("KV-Operation") != "")
		case <-ticker.C:
			s.look(ctx)
		}
		s.tell()
	}
}

// watchServed returns the changes of the nodes' tenants, those that there are first.
func (s *following) watchServed(ctx context.Context) (jetstream.KeyWatcher, error) {
	bucket, err := s.js.KeyValue(ctx, BucketServed)
	if err != nil {
		return nil, fmt.Errorf("backbone: open bucket %s: %w", BucketServed, err)
	}
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("backbone: follow nodes: %w", err)
	}
	s.served.forget(func(node string) bool { return s.known[node] != nil })
	return watcher, nil
}

// nodesSubject is the prefix of the subjects of announcements (NATS ADR-8).
const nodesSubject = "$KV." + BucketNodes + "."

// wait waits before following is attempted again; silent nodes are looked at meanwhile.
func (s *following) wait(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
		s.look(ctx)
		s.tell()
	}
}

// tell tells the follower of a change.
func (s *following) tell() {
	if !s.changed || !s.complete {
		return
	}
	s.changed = false
	fleet := Fleet{Silent: map[string]time.Time{}, Lost: slices.Collect(maps.Values(s.lost)), Heard: s.heard}
	for n := range fleet.Lost {
		fleet.Lost[n].Node.Tenants = s.served.tenants(fleet.Lost[n].Node)
	}
	for id, h := range s.known {
		h.node.Tenants = s.served.tenants(h.node)
		fleet.Nodes = append(fleet.Nodes, h.node)
		if h.silent {
			fleet.Silent[id] = h.at
		}
	}
	s.follower.Each(fleet)
}

// take records an announcement, or a goodbye. revision is 0 for one that was published and may
// not be stored.
func (s *following) take(id string, data []byte, revision uint64, goodbye bool) {
	before := s.known[id]
	if goodbye {
		_, wasLost := s.lost[id]
		s.changed = s.changed || before != nil || wasLost
		delete(s.known, id)
		delete(s.lost, id)
		return
	}
	var node Node
	if json.Unmarshal(data, &node) != nil || node.ID != id {
		return // of a version that this one does not understand
	}
	now := time.Now()
	next := &heard{node: node, at: now, said: string(data), revision: revision}
	if before != nil {
		if node.Beat > 0 && node.Started.Equal(before.node.Started) && node.Beat <= before.node.Beat {
			before.revision = max(before.revision, revision)
			return // the bucket's copy, or an older one
		}
		next.revision = max(before.revision, revision)
	}
	if now.Sub(s.heard) > silence {
		s.since = now
	}
	s.heard = now
	s.known[id] = next
	s.changed = s.changed || before == nil || before.silent || before.said != next.said
	if _, back := s.lost[id]; back {
		delete(s.lost, id)
	} else if before == nil && s.complete {
		s.replace(node)
	}
}

// replace forgets the lost node whose place a new one takes: of its kind, the first that was
// lost.
func (s *following) replace(node Node) {
	var first *LostNode
	for _, l := range s.lost {
		if l.Node.Kind == node.Kind && (first == nil || l.Heard.Before(first.Heard)) {
			first = &l
		}
	}
	if first != nil {
		delete(s.lost, first.Node.ID)
	}
}

// look finds the silent nodes, and decides which of them are lost.
func (s *following) look(ctx context.Context) {
	now := time.Now()
	var silent []Node
	for _, h := range s.known {
		if quiet := now.Sub(h.at) > silence; quiet != h.silent {
			h.silent, s.changed = quiet, true
		}
		if h.silent {
			silent = append(silent, h.node)
		}
	}
	for id, l := range s.lost {
		if now.Sub(l.Heard) > lostKept {
			delete(s.lost, id)
			s.changed = true
		}
	}
	if len(silent) == 0 || now.Sub(s.asked) < Heartbeat {
		return
	}
	s.asked = now
	if silent = s.lookFor(ctx, silent); len(silent) == 0 {
		return
	}
	verdicts := map[string]Verdict{}
	if s.follower.Ask != nil {
		asking, cancel := context.WithTimeout(ctx, Heartbeat)
		defer cancel()
		verdicts = s.follower.Ask(asking, silent)
	}
	// Others must have been heard after the silent ones fell silent, which at the begin of an
	// outage they have not; and for a while, since at its end some are heard before others.
	others := now.Sub(s.heard) <= speech && now.Sub(s.since) > silence
	for _, node := range silent {
		if v := verdicts[node.ID]; v == Gone || v == Unknown && others {
			s.lose(LostNode{node, s.known[node.ID].at})
		}
	}
}

// lookFor reads from the bucket what silent nodes have announced since, which may have been
// missed with a server, and returns those that are silent still.
func (s *following) lookFor(ctx context.Context, silent []Node) []Node {
	if !s.js.Conn().IsConnected() {
		return silent
	}
	ctx, cancel := context.WithTimeout(ctx, Heartbeat/2)
	defer cancel()
	for _, node := range silent {
		msg, err := askLeader(ctx, s.js, "KV_"+BucketNodes, question{Last: nodesSubject + node.ID})
		switch {
		case err != nil:
			return silent // the bucket has no leader, or too many are silent: the verdicts decide
		case msg == nil: // it has expired, which says nothing
		case msg.Sequence > s.known[node.ID].revision:
			s.take(node.ID, msg.Data, msg.Sequence, msg.Header.Get("KV-Operation") != "")
		}
	}
	return slices.DeleteFunc(silent, func(node Node) bool { return s.known[node.ID] == nil || !s.known[node.ID].silent })
}

// lose records a node as lost, in the place of the first of them if there are too many.
func (s *following) lose(node LostNode) {
	if len(s.lost) >= maxLost {
		delete(s.lost, slices.MinFunc(slices.Collect(maps.Values(s.lost)), func(a, b LostNode) int { return a.Heard.Compare(b.Heard) }).Node.ID)
	}
	s.lost[node.Node.ID] = node
	delete(s.known, node.Node.ID)
	s.changed = true
}
