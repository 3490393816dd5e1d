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
	// silence is the time without announcements after which a node is silent.
	silence = MissedHeartbeats * Heartbeat
	// recent is the time after an announcement within which further announcements are expected. It is longer than a
	// heartbeat, and so much shorter than silence that it has passed when the first node of an outage is silent.
	recent = 3 * Heartbeat / 2
	// lostRetention is the time for which a lost node is retained, and maxLost bounds the number of lost nodes.
	lostRetention = 24 * time.Hour
	maxLost       = 256
	// announcementBuffer bounds the received announcements that are not read yet.
	announcementBuffer = 4096
)

// Fleet is the state of all nodes, as a follower receives it.
type Fleet struct {
	// Nodes are the last announcements of the present nodes, in no order: nodes that announce themselves, and silent
	// nodes that are not lost.
	Nodes []Node
	// Silent has the time of the last announcement of each silent node, by id: one that has not announced itself for
	// [MissedHeartbeats].
	Silent map[string]time.Time
	// Lost are the nodes that became silent without deregistering and do not respond. A lost node is retained for a
	// day, or until it returns, deregisters, or is replaced by a node of its kind with a new id.
	Lost []LostNode
	// LastAnnounced is when the last announcement of any node arrived; zero: none has.
	LastAnnounced time.Time
}

// LostNode is a node that became silent without deregistering.
type LostNode struct {
	// Node is its last announcement, and LastAnnounced the time at which it arrived.
	Node          Node
	LastAnnounced time.Time
}

// Verdict is the result of probing a silent node.
type Verdict int

// Verdicts.
const (
	// Unknown: the node was not probed. It is lost if other nodes announce themselves, since NATS is then reachable.
	Unknown Verdict = iota
	// Answers: the node responds. It is not lost, regardless of the time for which it is silent: NATS, or the node's
	// connection to it, is at fault.
	Answers
	// Gone: the node does not respond. It is lost.
	Gone
)

// Follower receives the nodes. Its functions are called one at a time.
type Follower struct {
	// Tenants requests that [Node.Tenants] is filled in.
	Tenants bool
	// Each is called with all nodes whenever they change.
	Each func(Fleet)
	// Ask probes silent nodes and returns the verdicts, by id, within a heartbeat; nil: all are [Unknown]. It is called
	// once per heartbeat while nodes are silent.
	Ask func(ctx context.Context, silent []Node) map[string]Verdict
	// Failed is called once per outage when following fails. Following is retried every second, and the last known
	// nodes are retained.
	Failed func(error)
}

// FollowNodes follows the nodes' announcements until ctx ends. A node is removed when it deregisters, or when it is
// silent and the verdict is that it is lost. Silence alone does not remove a node, since NATS may be unreachable, or
// the bucket full or without a leader. Announcements are received when they are published, whether or not they are
// stored; earlier ones are read from the bucket.
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
	newest   time.Time // when the last announcement of any node arrived
	since    time.Time // from then on announcements have arrived without a pause of [silence]
	asked    time.Time // when silent nodes were last probed
}

// announcement is the last announcement of a node.
type announcement struct {
	node     Node
	at       time.Time // of its arrival
	text     string
	revision uint64 // in the bucket; 0: not known to be stored
	earlier  bool   // received only under the key of the previous release
	silent   bool
}

// follow follows the nodes until ctx or the watch ends. It calls began when it has subscribed.
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
	// Foreign nodes have a separate buffer, so that a flood of their announcements does not displace others.
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
				s.record(entry.Key(), entry.Value(), entry.Revision(), entry.Operation() != jetstream.KeyValuePut)
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
			s.record(strings.TrimPrefix(msg.Subject, nodesSubject), msg.Data, 0, msg.Header.Get("KV-Operation") != "")
		case msg := <-foreign:
			s.recordForeign(msg)
		case <-ticker.C:
			s.examine(ctx)
			s.notify()
		}
		// Of many announcements the follower is notified once, and at each tick while more arrive.
		if len(published)+len(foreign) == 0 {
			s.notify()
		}
	}
}

// watchServed returns a watcher of the nodes' stored tenants.
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

// wait waits before the next attempt to follow, and then examines silent nodes.
func (s *following) wait(ctx context.Context, pause time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(pause):
		s.examine(ctx)
		s.notify()
	}
}

// notify notifies the follower if the nodes have changed.
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

// record records an announcement, or the deregistration of a node, that was received under a key of the bucket.
// revision is 0 for a published message, which may not be stored. An announcement is ignored if the key does not permit
// its id or kind, or if a node of another kind has the id.
func (s *following) record(key string, data []byte, revision uint64, deregistered bool) {
	if deregistered {
		s.remove(key)
		return
	}
	var node Node
	if json.Unmarshal(data, &node) != nil {
		return // of a version with another format
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
	if _, returned := s.lost[node.ID]; returned {
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

// replace removes the lost node that a new node replaces: of its kind, the one whose last announcement is the oldest.
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

// examine finds the silent nodes, and decides which of them are lost.
func (s *following) examine(ctx context.Context) {
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
	if silent = s.readStored(ctx, silent); len(silent) == 0 {
		return
	}
	verdicts := map[string]Verdict{}
	if s.follower.Ask != nil {
		asking, cancel := context.WithTimeout(ctx, Heartbeat)
		defer cancel()
		verdicts = s.follower.Ask(asking, silent)
	}
	// A node that was not probed is lost only if other nodes have announced themselves since it became silent, which
	// is not so at the beginning of an outage, and have done so for some time, since at the end of an outage some nodes
	// announce themselves earlier than others.
	others := now.Sub(s.newest) <= recent && now.Sub(s.since) > silence
	for _, node := range silent {
		if v := verdicts[node.ID]; v == Gone || v == Unknown && others {
			s.lose(LostNode{node, s.known[node.ID].at})
		}
	}
}

// readStored reads stored announcements of silent nodes from the bucket, since published ones may have been lost with
// a server, and returns the nodes that are still silent.
func (s *following) readStored(ctx context.Context, silent []Node) []Node {
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
			return s.stillSilent(silent) // the bucket has no leader, or too many nodes are silent: the verdicts decide
		case msg == nil: // it has expired
		case msg.Sequence > s.known[node.ID].revision:
			s.record(s.known[node.ID].key(), msg.Data, msg.Sequence, msg.Header.Get("KV-Operation") != "")
		}
	}
	return s.stillSilent(silent)
}

// stillSilent returns the nodes that have neither announced themselves again nor deregistered. It reuses the slice.
func (s *following) stillSilent(nodes []Node) []Node {
	return slices.DeleteFunc(nodes, func(node Node) bool { return s.known[node.ID] == nil || !s.known[node.ID].silent })
}

// lose records a node as lost. If there are [maxLost] lost nodes, it replaces the oldest.
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
