package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/streams"
)

// Drains is what [Node.Drains] announces: the node follows the records of [streams.BucketDrains].
const Drains = 1

// Drain is an operator's decision that a node takes no new calls. It is stored in the bucket [streams.BucketDrains]
// under the node's [NodeKey] until the node is resumed, and so applies after a restart of the node too.
type Drain struct {
	// Since is when the node was drained.
	Since time.Time `json:"since"`
	// By is the subject of the operator, and Reason the operator's reason; "": unknown.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// ErrDrained is the reason for which a drained node is not ready. It does not have the operator's reason, since
// readiness is public.
var ErrDrained = errors.New("the node is drained")

// drainedMetric describes the metric of [Drained].
var drainedMetric = prometheus.NewDesc("headgate_node_drained",
	"1 while an operator has drained the node, so that it is not ready.", nil, nil)

// Drained follows whether operators have drained a node. Its methods may be called concurrently.
type Drained struct {
	records *kv.Bucket[Drain]
	key     string
	drained atomic.Bool
}

// OpenDrained returns whether a node is drained, as of now.
func OpenDrained(ctx context.Context, js jetstream.JetStream, kind contextkit.Kind, node string) (*Drained, error) {
	records, err := kv.Open[Drain](ctx, js, streams.BucketDrains)
	if err != nil {
		return nil, err
	}
	all, err := records.All(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: the drained nodes: %w", err)
	}
	d := &Drained{records: records, key: NodeKey(kind, node)}
	d.set(all)
	return d, nil
}

func (d *Drained) set(all map[string]kv.Entry[Drain]) {
	_, drained := all[d.key]
	d.drained.Store(drained)
}

// Check returns [ErrDrained] while the node is drained.
func (d *Drained) Check() error {
	if d.drained.Load() {
		return ErrDrained
	}
	return nil
}

// Follow updates d until ctx ends. It calls failed with errors that delay it; the last known state stays.
func (d *Drained) Follow(ctx context.Context, failed func(error)) {
	d.records.Follow(ctx, d.set, failed)
}

// Describe implements [prometheus.Collector].
func (d *Drained) Describe(descriptions chan<- *prometheus.Desc) { descriptions <- drainedMetric }

// Collect implements [prometheus.Collector].
func (d *Drained) Collect(metrics chan<- prometheus.Metric) {
	value := 0.0
	if d.drained.Load() {
		value = 1
	}
	metrics <- prometheus.MustNewConstMetric(drainedMetric, prometheus.GaugeValue, value)
}
