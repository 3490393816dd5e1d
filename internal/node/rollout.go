package node

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/headgate/headgate/internal/backoff"
	"github.com/headgate/headgate/internal/excerpt"
	"github.com/headgate/headgate/internal/fleet"
	"github.com/headgate/headgate/internal/kv"
	"github.com/headgate/headgate/internal/models"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/model"
)

// maxProblem bounds the announced text about why an applied model is not used.
const maxProblem = 512

// modelDelays are the waits after failed attempts to use an applied model.
var modelDelays = backoff.Delays{First: time.Second, Longest: time.Minute}

// rollout makes a node use the models that are applied, and records which one it does not use yet. It exports the
// model in use and whether another one is pending.
type rollout struct {
	models *model.Registry
	log    zerolog.Logger

	mu      sync.Mutex
	pending kv.Entry[models.Document] // the newest that is not in use; the zero value: none
	problem error                     // of the last attempt

	arrived chan struct{} // holds a value when pending has changed
}

func newRollout(models *model.Registry, log zerolog.Logger) *rollout {
	return &rollout{models: models, log: log, arrived: make(chan struct{}, 1)}
}

// follow makes the node use each model that is applied, until ctx ends. A model that cannot be used, for example
// because of a later version's language, is retried with delays that double from 1 s to a minute; the one in use
// stays.
func (r *rollout) follow(ctx context.Context, js jetstream.JetStream) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		applied := func(all map[string]kv.Entry[models.Document]) {
			if kept, ok := all[models.Key]; ok {
				r.announceNext(kept)
			}
		}
		kv.Follow(ctx, js, streams.BucketModels, kv.Whole(applied), func(err error) {
			r.log.Warn().Err(err).Dur("again_in_ms", retryWait).Msg(
				"following applied models failed; the one in use stays",
			)
		})
	}()
	defer func() { <-done }()
	r.run(ctx)
	return nil
}

// announceNext records a model that was applied.
func (r *rollout) announceNext(kept kv.Entry[models.Document]) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if kept.Revision <= max(r.pending.Revision, r.models.Current().Order) {
		return
	}
	r.pending, r.problem = kept, nil
	select {
	case r.arrived <- struct{}{}:
	default:
	}
}

// run uses pending models until ctx ends.
func (r *rollout) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for wait := modelDelays.Next(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-r.arrived:
			wait = modelDelays.Next(0)
		case <-timer.C:
		}
		if r.try(ctx) {
			continue
		}
		timer.Reset(wait)
		wait = modelDelays.Next(wait)
	}
}

// try uses the pending model, and reports whether none is pending any more.
func (r *rollout) try(ctx context.Context) bool {
	r.mu.Lock()
	pending := r.pending
	r.mu.Unlock()
	if pending.Revision == 0 {
		return true
	}
	changed, err := r.models.Apply(ctx, "the applied model", []byte(pending.Value.Text), pending.Revision)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pending.Revision != pending.Revision {
		return false // a newer one has arrived
	}
	if err != nil {
		if ctx.Err() == nil {
			r.problem = err
			r.log.Error().Err(err).Str("model", pending.Value.Revision).Msg(
				"using the applied model failed, retrying; the one in use stays",
			)
		}
		return false
	}
	r.pending, r.problem = kv.Entry[models.Document]{}, nil
	if changed {
		r.log.Info().Str("model", r.models.Current().Revision).Msg("now using the applied model")
	}
	return true
}

// announce fills in the announcement of the node's model.
func (r *rollout) announce(node *fleet.Node) {
	current := r.models.Current()
	node.Model, node.ModelOrder = current.Revision, current.Order
	r.mu.Lock()
	defer r.mu.Unlock()
	node.ModelPending, node.ModelProblem = r.pending.Value.Revision, ""
	if r.problem != nil {
		node.ModelProblem = excerpt.Text(r.problem.Error(), maxProblem)
	}
}

var (
	modelInfo = prometheus.NewDesc("headgate_model_info", "1, with the revision of the model that the process uses.",
		[]string{"revision"}, nil)
	modelPending = prometheus.NewDesc("headgate_model_pending",
		"1 while a model has been applied that the process does not use.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (r *rollout) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- modelInfo
	descriptions <- modelPending
}

// Collect implements [prometheus.Collector].
func (r *rollout) Collect(metrics chan<- prometheus.Metric) {
	r.mu.Lock()
	pending := 0.0
	if r.pending.Revision > 0 {
		pending = 1
	}
	r.mu.Unlock()
	metrics <- prometheus.MustNewConstMetric(modelInfo, prometheus.GaugeValue, 1, r.models.Current().Revision)
	metrics <- prometheus.MustNewConstMetric(modelPending, prometheus.GaugeValue, pending)
}
