package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// Heartbeat is how often a node says that it is there.
	Heartbeat = time.Second
	// MissedHeartbeats is after how many a silent node is taken to be gone.
	MissedHeartbeats = 3
	// lookEvery is how often a node looks whether it still takes calls, and so how
	// late others may hear that it does not.
	lookEvery = 100 * time.Millisecond
	// goodbyeTimeout bounds how long the end of a process waits to say so.
	goodbyeTimeout = 2 * time.Second
	// lostKept is how long a node that fell silent is remembered, and maxLost how
	// many are.
	lostKept = 10 * time.Minute
	maxLost  = 256
)

// Node is what a process says of itself.
type Node struct {
	// ID is unique and stays the same across restarts: letters, digits, '-', '_'
	// and '.'.
	ID string `json:"id"`
	// Kind is what it serves: "gateway", "aggregate", "projection", "runner",
	// "control".
	Kind string `json:"kind"`
	// Endpoint is host:port, as others reach it.
	Endpoint string `json:"endpoint"`
	// Version is the program's.
	Version string `json:"version,omitempty"`
	// Tenants are those that it serves.
	Tenants []string `json:"tenants,omitempty"`
	// Reflect says that gateways do not know its services beforehand and shall ask
	// for them (gRPC reflection).
	Reflect bool `json:"reflect,omitempty"`
	// Tokens is the newest version of positions and page tokens that the node reads. Nodes
	// that read version 1 alone announce 0.
	Tokens int `json:"tokens,omitempty"`
	// Started is when the process began.
	Started time.Time `json:"started"`
	// Ready says that it takes calls; Reason why not.
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"`
	// Refusal is what clients are told while the node takes no calls, as a clause such as "the
	// disk of the journal is full"; "": nothing. It has nothing internal.
	Refusal string `json:"refusal,omitempty"`
	// Degraded lists the kinds of nodes whose calls a gateway refuses, since none of their
	// nodes takes calls. It is ready for the calls of other kinds.
	Degraded []string `json:"degraded,omitempty"`
	// Load is what it is doing; nil: it does not say.
	Load *Load `json:"load,omitempty"`
	// Lag is how many events wait for it, of all its tenants; nil: none ever do.
	Lag *int64 `json:"lag,omitempty"`
	// Routing is the revision of the placements that a gateway routes by, and Open
	// the endpoints from which its breakers divert calls, or "endpoint /service/Method" for
	// the calls of one method.
	Routing uint64   `json:"routing,omitempty"`
	Open    []string `json:"open,omitempty"`
}

// Load is what a node has been doing in the last seconds.
type Load struct {
	// Calls and Errors are those that ended, a second; Errors are the node's own
	// fault.
	Calls  float64 `json:"calls"`
	Errors float64 `json:"errors"`
	// P50, P95 and P99 are how long calls took, in milliseconds; 0 without calls.
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	// InFlight is the calls being answered, streams included.
	InFlight int64 `json:"in_flight"`
	// Memory is the bytes that the process has from the system, and Goroutines how
	// many it runs.
	Memory     uint64 `json:"memory"`
	Goroutines int    `json:"goroutines"`
}

var nodeID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// Announce says every heartbeat that the node is there, and at once when it
// begins or ceases to take calls; until ctx ends: then it says goodbye. now tells
// what changes about the node (with other slices, where these change), and why it takes
// no calls. While JetStream is away nothing is said.
func Announce(ctx context.Context, js jetstream.JetStream, node Node, now func(context.Context, *Node) error) error {
	if !nodeID.MatchString(node.ID) {
		return fmt.Errorf("backbone: node id %q: want letters, digits, '-', '_' and '.'", node.ID)
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var (
		said time.Time
		last Node
	)
	for {
		node.Ready, node.Reason = true, ""
		if err := now(ctx, &node); err != nil {
			node.Ready, node.Reason = false, err.Error()
		}
		if node.news(last) || time.Since(said) >= Heartbeat {
			data, err := json.Marshal(node)
			if err != nil {
				return fmt.Errorf("backbone: announce %s: %w", node.ID, err)
			}
			if say(ctx, js, node.ID, data) == nil {
				said, last = time.Now(), node
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
			defer cancel()
			_ = deleteKept(contextkit.PlatformContext(goodbye), js, BucketNodes, node.ID) // if it is lost, silence says the same
			return nil
		}
	}
}

// news reports whether others should hear at once of what has changed since last.
func (n *Node) news(last Node) bool {
	return n.Ready != last.Ready || n.Reason != last.Reason || n.Routing != last.Routing || !slices.Equal(n.Degraded, last.Degraded) || !slices.Equal(n.Tenants, last.Tenants)
}

// say stores a node's announcement under the platform's context.
func say(ctx context.Context, js jetstream.JetStream, id string, data []byte) error {
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), Heartbeat)
	defer cancel()
	_, err := PutKept(ctx, js, BucketNodes, id, data)
	return err
}

// LostNode is a node that fell silent without a goodbye.
type LostNode struct {
	// Node is what it said last, and Heard when.
	Node  Node
	Heard time.Time
}

// FollowNodes calls each with all nodes that are there, and those that were lost in the
// last ten minutes and have not come back, both in no order, whenever that changes,
// until ctx ends. While JetStream is away, or the nodes' bucket without a leader, nobody is
// taken to be gone.
func FollowNodes(ctx context.Context, js jetstream.JetStream, each func(nodes []Node, lost []LostNode)) error {
	bucket, err := js.KeyValue(ctx, BucketNodes)
	if err != nil {
		return fmt.Errorf("backbone: open bucket %s: %w", BucketNodes, err)
	}
	updates, err := bucket.WatchAll(ctx)
	if err != nil {
		return fmt.Errorf("backbone: follow nodes: %w", err)
	}
	defer func() { _ = updates.Stop() }() // it ends with ctx anyway
	known, lost := map[string]*heard{}, map[string]LostNode{}
	ticker := time.NewTicker(Heartbeat / 4)
	defer ticker.Stop()
	complete := false
	for {
		changed := false
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
			switch {
			case entry == nil:
				complete, changed = true, true // all that were there before are known
			case entry.Operation() != jetstream.KeyValuePut:
				_, wasThere := known[entry.Key()]
				_, wasLost := lost[entry.Key()]
				changed = wasThere || wasLost
				delete(known, entry.Key())
				delete(lost, entry.Key())
			default:
				var node Node
				if json.Unmarshal(entry.Value(), &node) != nil || node.ID != entry.Key() {
					continue // not for us to understand
				}
				before := known[node.ID]
				known[node.ID] = &heard{node, time.Now(), string(entry.Value()), entry.Revision()}
				delete(lost, node.ID)
				changed = before == nil || before.said != string(entry.Value())
			}
		case <-ticker.C:
			if !js.Conn().IsConnected() {
				for _, h := range known {
					h.at = time.Now() // whoever cannot be heard is not silent
				}
				continue
			}
			away := false
			for id, h := range known {
				if away || time.Since(h.at) <= MissedHeartbeats*Heartbeat {
					continue
				}
				switch now, err := lookFor(ctx, js, *h); {
				case errors.Is(err, errSilent):
					delete(known, id)
					lose(lost, LostNode{h.node, h.at})
					changed = true
				case errors.Is(err, ErrNotKept): // it has said goodbye
					delete(known, id)
					changed = true
				case err != nil: // nobody can say anything
					away = true
				default:
					changed = changed || now.said != h.said
					*h = now
				}
			}
			if away {
				for _, h := range known {
					h.at = time.Now()
				}
			}
			for id, l := range lost {
				if time.Since(l.Heard) > lostKept {
					delete(lost, id)
					changed = true
				}
			}
		}
		if !changed || !complete {
			continue
		}
		nodes := make([]Node, 0, len(known))
		for _, h := range known {
			nodes = append(nodes, h.node)
		}
		each(nodes, slices.Collect(maps.Values(lost)))
	}
}

// heard is what a node has said last.
type heard struct {
	node     Node
	at       time.Time // by our clock
	said     string
	revision uint64
}

// lookFor returns what a node has said since it was heard of last. A word that is not
// heard may still have been said: what watches a bucket may be lost with a server, and is
// replaced some seconds later. Errors: errSilent, [ErrNotKept], or why it is not known,
// such as that the bucket has no leader, without whom no word is taken.
func lookFor(ctx context.Context, js jetstream.JetStream, last heard) (heard, error) {
	ctx, cancel := context.WithTimeout(ctx, Heartbeat/2)
	defer cancel()
	kept, err := ReadKept(ctx, js, BucketNodes, last.node.ID)
	switch {
	case err != nil:
		return last, err
	case kept.Revision <= last.revision:
		return last, errSilent
	}
	now := heard{at: time.Now(), said: string(kept.Value), revision: kept.Revision}
	return now, json.Unmarshal(kept.Value, &now.node)
}

// lose adds a node to those that were lost, in the place of the first of them if there
// are too many.
func lose(lost map[string]LostNode, node LostNode) {
	if len(lost) >= maxLost {
		delete(lost, slices.MinFunc(slices.Collect(maps.Values(lost)), func(a, b LostNode) int { return a.Heard.Compare(b.Heard) }).Node.ID)
	}
	lost[node.Node.ID] = node
}
