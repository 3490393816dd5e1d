package fleet

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

	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

const (
	// silence is how long a node may not announce itself before it is silent.
	silence = MissedHeartbeats * Heartbeat
	// recent is how long after an announcement other announcements can be expected: longer than a
	// heartbeat, and shorter than silence by enough to end before the first node is silent.
	recent = 3 * Heartbeat / 2
	// lostRetention is how long a lost node is retained, and maxLost bounds their number.
	lostRetention = 24 * time.Hour
	maxLost       = 256
	// announcementBuffer bounds the received announcements that are not read yet.
	announcementBuffer = 4096
)

// Fleet is the state of the nodes for a follower.
type Fleet struct {
	// Nodes are the present nodes, in no order, each by its last announcement: the nodes that
	// announce themselves, and silent nodes that are not lost.
	Nodes []Node
	// Silent has the time of the last announcement, by id, of the nodes that have not announced
	// themselves for [MissedHeartbeats].
	Silent map[string]time.Time
	// Lost are nodes that became silent without deregistering and do not answer, for a day or until
	// they are back, deregister, or are replaced by a node of their kind with a new id.
	Lost []LostNode
	// LastAnnounced is when the last announcement of any node arrived, zero for never.
	LastAnnounced time.Time
}

// LostNode is a node that became silent without deregistering.
type LostNode struct {
	// Node is its last announcement, and LastAnnounced when that arrived.
	Node          Node
	LastAnnounced time.Time
}

// Verdict is the result of probing a silent node.
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

// Follower receives the nodes.
type Follower struct {
	// Tenants requests that [Node.Tenants] is filled in.
	Tenants bool
	// Each is called with all nodes whenever they change.
	Each func(Fleet)
	// Ask returns the verdicts on silent nodes, by id, within a heartbeat; nil: all are
	// [Unknown]. It is called once per heartbeat while nodes are silent.
	Ask func(ctx context.Context, silent []Node) map[string]Verdict
	// Failed is called once per outage when following fails. Following is retried each second, and
	// the last known nodes stay.
	Failed func(error)
}

// FollowNodes follows the nodes' announcements until ctx ends. Silence alone does not remove a
// node: NATS may be unreachable, its bucket full or without a leader. A node is removed when it
// deregisters, or when it is silent and the follower's verdict is that it is gone. Announcements
// are received when they are published, stored or not, and earlier ones from the bucket.
func FollowNodes(ctx context.Context, js jetstream.JetStream, f Follower) {
	s := &following{
		js:       js,
		follower: f,
		known:    map[string]*announcement{},
		lost:     map[string]LostNode{},
		served:   servedLists{nodes: map[string]*servedList{}},
	}
	for failed := false; ctx.Err() == nil; {
		err := s.follow(ctx, func() { failed = false })
		if err != nil && ctx.Err() == nil && !failed && f.Failed != nil {
			failed = true
			f.Failed(err)
		}
		s.wait(ctx, kv.FollowPause)
	}
}

// following is the state of FollowNodes.
type following struct {
	js       jetstream.JetStream
	follower Follower

	known    map[string]*announcement
	lost     map[string]LostNode
	served   servedLists
	complete bool      // the initial content of the buckets has been read
	changed  bool      // since the follower was notified
	newest   time.Time // of the last announcement of any node
	since    time.Time // start of the period in which announcements came without a pause of [silence]
	asked    time.Time // silent nodes
}

// announcement is the last announcement of a node.
type announcement struct {
	node     Node
	at       time.Time // by the clock of this process
	text     string
	revision uint64 // in the bucket; 0: not stored yet, as far as is known
	earlier  bool   // received only under the key of the previous release
	silent   bool
}

// follow follows until the watch ends. began is called when the nodes are followed.
func (s *following) follow(ctx context.Context, began func()) error {
	bucket, err := s.js.KeyValue(ctx, streams.BucketNodes)
	if err != nil {
		return fmt.Errorf("fleet: open bucket %s: %w", streams.BucketNodes, err)
	}
	updates, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("fleet: follow nodes: %w", err)
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
	published := make(chan *nats.Msg, announcementBuffer)
	direct, err := s.js.Conn().ChanSubscribe(nodesSubject+">", published)
	if err != nil {
		return fmt.Errorf("fleet: follow nodes: %w", err)
	}
	defer func() { _ = direct.Unsubscribe() }() // the connection has ended if it fails
	// In a separate buffer, so that a flood of theirs displaces no announcement of the platform's nodes.
	foreign := make(chan *nats.Msg, announcementBuffer)
	others, err := s.js.Conn().ChanSubscribe(ForeignNodes, foreign)
	if err != nil {
		return fmt.Errorf("fleet: follow nodes: %w", err)
	}
	defer func() { _ = others.Unsubscribe() }() // likewise
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
				return errors.New("fleet: follow nodes: the watch has ended")
			}
			if entry == nil {
				announced = true // the initial values have arrived
				s.complete, s.changed = s.complete || listed, true
			} else {
				s.take(entry.Key(), entry.Value(), entry.Revision(), entry.Operation() != jetstream.KeyValuePut)
			}
		case entry, open := <-lists:
			switch {
			case !open && ctx.Err() != nil:
				return nil
			case !open:
				return errors.New("fleet: follow nodes: the watch of their tenants has ended")
			case entry == nil:
				listed = true
				s.complete, s.changed = s.complete || announced, true
			default:
				s.changed = s.known[s.served.take(entry)] != nil || s.changed
			}
		case msg := <-published:
			s.take(strings.TrimPrefix(msg.Subject, nodesSubject), msg.Data, 0, msg.Header.Get("KV-Operation") != "")
		case msg := <-foreign:
			s.takeForeign(msg)
		case <-ticker.C:
			s.look(ctx)
			s.notify()
		}
		// Of many announcements the follower is notified once, and at each tick while more arrive.
		if len(published)+len(foreign) == 0 {
			s.notify()
		}
	}
}

// watchServed returns the current tenants of the nodes and then their changes.
func (s *following) watchServed(ctx context.Context) (jetstream.KeyWatcher, error) {
	bucket, err := s.js.KeyValue(ctx, streams.BucketServed)
	if err != nil {
		return nil, fmt.Errorf("fleet: open bucket %s: %w", streams.BucketServed, err)
	}
	watcher, err := bucket.WatchAll(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: follow nodes: %w", err)
	}
	s.served.forget(func(node string) bool { return s.known[node] != nil })
	return watcher, nil
}

// nodesSubject is the prefix of the subjects of announcements (NATS ADR-8).
const nodesSubject = "$KV." + streams.BucketNodes + "."

// wait waits before following is attempted again, and examines silent nodes.
func (s *following) wait(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
		s.look(ctx)
		s.notify()
	}
}

// notify notifies the follower of a change.
func (s *following) notify() {
	if !s.changed || !s.complete {
		return
	}
	s.changed = false
	fleet := Fleet{Silent: map[string]time.Time{}, Lost: slices.Collect(maps.Values(s.lost)), LastAnnounced: s.newest}
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

// key returns the key under which the node's last announcement is stored.
func (a *announcement) key() string {
	if a.earlier {
		return a.node.ID
	}
	return NodeKey(a.node.Kind, a.node.ID)
}

// take records an announcement or a goodbye under a key of the bucket. revision is 0 for a
// published message, which may not be stored. What the key does not allow is ignored: another id
// or kind, and an id that a node of another kind has.
func (s *following) take(key string, data []byte, revision uint64, goodbye bool) {
	if goodbye {
		s.remove(key)
		return
	}
	var node Node
	if json.Unmarshal(data, &node) != nil {
		return // of a version that this one does not understand
	}
	earlier := node.ID == key && !natsclient.Identified(s.js.Conn())
	if !earlier && (CheckNode(node.Kind, node.ID) != nil || NodeKey(node.Kind, node.ID) != key) {
		return
	}
	before := s.known[node.ID]
	if before == nil && !node.Kind.Platform() && s.foreignFull() {
		return
	}
	if before != nil && !before.earlier {
		if earlier && !node.Started.After(before.node.Started) {
			return // the copy for the previous release
		}
		if !earlier && node.Kind != before.node.Kind {
			return // the id is in use
		}
	}
	now := time.Now()
	next := &announcement{
		node:     node,
		at:       now,
		text:     string(data),
		revision: revision,
		earlier:  earlier,
	}
	if before != nil && before.earlier == earlier {
		if node.Beat > 0 && node.Started.Equal(before.node.Started) && node.Beat <= before.node.Beat {
			before.revision = max(before.revision, revision)
			return // the bucket's copy, or an older one
		}
		next.revision = max(before.revision, revision)
	}
	if now.Sub(s.newest) > silence {
		s.since = now
	}
	s.newest = now
	s.known[node.ID] = next
	s.changed = s.changed || before == nil || before.silent || before.text != next.text
	if _, back := s.lost[node.ID]; back {
		delete(s.lost, node.ID)
	} else if before == nil && s.complete {
		s.replace(node)
	}
}

// remove removes the node whose announcement under a key was deleted.
func (s *following) remove(key string) {
	for id, known := range s.known {
		if known.key() == key {
			delete(s.known, id)
			s.changed = true
		}
	}
	for id, lost := range s.lost {
		if NodeKey(lost.Node.Kind, id) == key || id == key && !natsclient.Identified(s.js.Conn()) {
			delete(s.lost, id)
			s.changed = true
		}
	}
}

// replace forgets the lost node whose place a new one takes: of its kind, the first that was
// lost.
func (s *following) replace(node Node) {
	var first *LostNode
	for _, l := range s.lost {
		if l.Node.Kind == node.Kind && (first == nil || l.LastAnnounced.Before(first.LastAnnounced)) {
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
		if now.Sub(l.LastAnnounced) > lostRetention {
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
	// Other nodes must have announced themselves after these fell silent, which is not so when an
	// outage begins, and for some time, since when it ends some nodes announce themselves first.
	others := now.Sub(s.newest) <= recent && now.Sub(s.since) > silence
	for _, node := range silent {
		if v := verdicts[node.ID]; v == Gone || v == Unknown && others {
			s.lose(LostNode{node, s.known[node.ID].at})
		}
	}
}

// lookFor reads later announcements of silent nodes from the bucket, which may have been lost with
// a server, and returns the nodes that are still silent.
func (s *following) lookFor(ctx context.Context, silent []Node) []Node {
	if !s.js.Conn().IsConnected() {
		return silent
	}
	ctx, cancel := context.WithTimeout(ctx, Heartbeat/2)
	defer cancel()
	for _, node := range silent {
		if !storesAnnouncement(s.js, node.Kind) {
			continue
		}
		msg, err := natsclient.AskLeader(ctx, s.js, "KV_"+streams.BucketNodes,
			natsclient.Question{Last: nodesSubject + s.known[node.ID].key()})
		switch {
		case err != nil:
			return s.stillSilent(silent) // the bucket has no leader, or too many are silent: the verdicts decide
		case msg == nil: // it has expired, which proves nothing
		case msg.Sequence > s.known[node.ID].revision:
			s.take(s.known[node.ID].key(), msg.Data, msg.Sequence, msg.Header.Get("KV-Operation") != "")
		}
	}
	return s.stillSilent(silent)
}

// stillSilent returns those nodes that have neither announced themselves nor left.
func (s *following) stillSilent(nodes []Node) []Node {
	return slices.DeleteFunc(nodes, func(node Node) bool { return s.known[node.ID] == nil || !s.known[node.ID].silent })
}

// lose records a node as lost, in the place of the first of them if there are too many.
func (s *following) lose(node LostNode) {
	if len(s.lost) >= maxLost {
		delete(
			s.lost,
			slices.MinFunc(slices.Collect(maps.Values(s.lost)),
				func(a, b LostNode) int { return a.LastAnnounced.Compare(b.LastAnnounced) }).Node.ID,
		)
	}
	s.lost[node.Node.ID] = node
	delete(s.known, node.Node.ID)
	s.changed = true
}
