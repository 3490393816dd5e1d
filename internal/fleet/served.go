package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/streams"
)

// A node announces itself each second, and the names of thousands of tenants only when they change:
// they are stored in the bucket [streams.BucketServed], divided by hash into parts, and the
// announcement has their number and digest.

// Lists is the newest form of [Node.Tenants] that this version reads, as announced
// ([Node.Lists]): 1: in the bucket [streams.BucketServed].
const Lists = 1

const (
	// servedParts is the number of parts of a node's tenants. A change of one tenant writes one
	// part.
	servedParts = 64
	// servedAgain is the interval at which a node writes its tenants again, so that they do not
	// expire ([streams.ServedTTL]).
	servedAgain = 20 * time.Minute
)

// tenantsDigest returns the digest of sorted tenants.
func tenantsDigest(tenants []string) string {
	hash := fnv.New64a()
	for _, tenant := range tenants {
		_, _ = hash.Write([]byte(tenant)) // it does not fail
		_, _ = hash.Write([]byte{'\n'})
	}
	return strconv.FormatUint(hash.Sum64(), 16)
}

// partOf returns the part of a tenant.
func partOf(tenant string) int {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(tenant)) // it does not fail
	return int(hash.Sum32() % servedParts)
}

// servedWriter writes a node's tenants into the bucket.
type servedWriter struct {
	js   jetstream.JetStream
	node string

	loaded  bool // written has the former content of the bucket
	written [servedParts][]string
	at      time.Time // when all parts were written last
	// tenants are the written tenants, with their digest.
	tenants []string
	digest  string

	asked time.Time // which nodes read tenants from the bucket
	read  bool      // all do
}

// askReaders is the interval of checking which nodes read tenants from the bucket.
const askReaders = 3 * Heartbeat

// allRead reports whether all of the platform's nodes read tenants from the bucket, as far as
// known.
func (w *servedWriter) allRead(ctx context.Context) bool {
	if time.Since(w.asked) < askReaders {
		return w.read
	}
	w.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, Heartbeat/2)
	defer cancel()
	all := true
	if err := natsclient.ReadBatches(
		ctx, w.js, "KV_"+streams.BucketNodes, nodesSubject+">", 1, 0, func(msg *jetstream.RawStreamMsg) error {
			var node Node
			if msg.Header.Get("KV-Operation") == "" && json.Unmarshal(msg.Data, &node) == nil {
				all = all && (node.Lists >= Lists || !node.Kind.Platform())
			}
			return nil
		},
	); err == nil {
		w.read = all
	}
	return w.read
}

// write writes the parts of the tenants that have changed to the bucket, and reports whether the
// bucket has the tenants.
func (w *servedWriter) write(ctx context.Context, tenants []string) bool {
	again := time.Since(w.at) > servedAgain
	if !again && sameTenants(tenants, w.tenants) {
		return true
	}
	sorted := slices.Clone(tenants)
	slices.Sort(sorted)
	var parts [servedParts][]string
	for _, tenant := range sorted {
		n := partOf(tenant)
		parts[n] = append(parts[n], tenant)
	}
	ctx, cancel := context.WithTimeout(contextkit.PlatformContext(ctx), MissedHeartbeats*Heartbeat/2)
	defer cancel()
	if !w.loaded && w.load(ctx) != nil {
		return false
	}
	for n, part := range parts {
		if slices.Equal(part, w.written[n]) && (!again || len(part) == 0) {
			continue
		}
		data, err := json.Marshal(part)
		if err != nil {
			return false
		}
		if _, err := kv.Put(ctx, w.js, streams.BucketServed, fmt.Sprintf("%d.%s", n, w.node), data); err != nil {
			w.loaded, w.tenants, w.at = false, nil, time.Time{} // whether it is stored is not known
			return false
		}
		w.written[n] = part
	}
	if again {
		w.at = time.Now()
	}
	w.tenants, w.digest = tenants, tenantsDigest(sorted)
	return true
}

// load reads the parts that an earlier process of the node has written.
func (w *servedWriter) load(ctx context.Context) error {
	prefix := "$KV." + streams.BucketServed + "."
	w.written = [servedParts][]string{}
	err := natsclient.ReadBatches(
		ctx, w.js, "KV_"+streams.BucketServed, prefix+"*."+w.node, 1, 0, func(msg *jetstream.RawStreamMsg) error {
			text, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, prefix), ".")
			if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < servedParts {
				_ = json.Unmarshal(msg.Data, &w.written[n]) // an unreadable part is written again
			}
			return nil
		},
	)
	w.loaded = err == nil
	return err
}

// servedLists has the tenants of nodes that the bucket has.
type servedLists struct {
	nodes map[string]*servedList
}

// servedList has the tenants of one node.
type servedList struct {
	parts [servedParts][]string
	count int
	stale bool      // tenants differ from the parts
	at    time.Time // of the last change
	// tenants are the last that agreed with an announcement, sorted, with their digest.
	tenants []string
	digest  string
}

// take records an entry of the bucket, and returns the node that it is about, "" for none.
func (l *servedLists) take(entry jetstream.KeyValueEntry) string {
	text, node, _ := strings.Cut(entry.Key(), ".")
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n >= servedParts || node == "" {
		return ""
	}
	var part []string
	if entry.Operation() == jetstream.KeyValuePut && json.Unmarshal(entry.Value(), &part) != nil {
		return ""
	}
	list := l.nodes[node]
	if list == nil {
		list = &servedList{}
		l.nodes[node] = list
	}
	list.at = time.Now()
	if slices.Equal(part, list.parts[n]) {
		return ""
	}
	list.count += len(part) - len(list.parts[n])
	list.parts[n], list.stale = part, true
	return node
}

// tenants returns the tenants that a node serves by its announcement; until all of their parts have
// arrived, the former ones. The slice must not be changed.
func (l *servedLists) tenants(node Node) []string {
	if node.TenantsDigest == "" {
		return node.Tenants
	}
	list := l.nodes[node.ID]
	if list == nil {
		return nil
	}
	if list.digest != node.TenantsDigest && list.stale && list.count == node.TenantCount {
		sorted := make([]string, 0, list.count)
		for _, part := range list.parts {
			sorted = append(sorted, part...)
		}
		slices.Sort(sorted)
		if digest := tenantsDigest(sorted); digest == node.TenantsDigest {
			list.tenants, list.digest, list.stale = sorted, digest, false
		}
	}
	return list.tenants
}

// forget drops the tenants of nodes that are not known and have been gone for long.
func (l *servedLists) forget(known func(node string) bool) {
	for node, list := range l.nodes {
		if time.Since(list.at) > streams.ServedTTL && !known(node) {
			delete(l.nodes, node)
		}
	}
}
