package backbone

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"regexp"
	"slices"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// hopRate bounds the hops that a process records a second; further ones are
	// counted and left out.
	hopRate = 1000
	// hopQueue bounds those that wait to be published, and hopsPending those on
	// their way.
	hopQueue, hopsPending = 2048, 512
	// hopFlush bounds how long the end of a process waits for the last ones.
	hopFlush = 2 * time.Second
	// maxHops bounds what is read of one timeline.
	maxHops = 2000
)

// Kinds of hops.
const (
	HopCall       = "call"       // a gateway has answered a call
	HopCommand    = "command"    // an aggregate has decided a command
	HopEvent      = "event"      // an event was appended
	HopProjection = "projection" // an event's rows were committed
	HopStep       = "step"       // a workflow's step was done
)

// HopFailed is the code of a step that is tried again.
const HopFailed = "failed"

// Hop is one station of what a call has caused.
type Hop struct {
	Kind string `json:"kind"`
	// Name is the procedure, command, event type, or workflow and step.
	Name string `json:"name"`
	// Node is the id of the node that it happened on.
	Node string `json:"node,omitempty"`
	// Started is when it began, and Milliseconds how long it took.
	Started      time.Time `json:"started"`
	Milliseconds float64   `json:"ms"`
	// Code is how it ended: "ok", or a Connect code, or a step's outcome.
	Code string `json:"code"`
	// Detail is what else is known, in words.
	Detail string `json:"detail,omitempty"`
	// Subject is the aggregate, as type/id, and Event the event's id, if there is
	// one.
	Subject string `json:"subject,omitempty"`
	Event   string `json:"event,omitempty"`

	// Span is that of an event that was appended (see Event.Span), and Published how long it
	// took to be acknowledged. They are for Tell alone.
	Span      contextkit.SpanID `json:"-"`
	Published time.Duration     `json:"-"`

	CorrelationID string `json:"correlation_id"`
	TraceID       string `json:"trace_id"`
	RequestID     string `json:"request_id"`
	CausationID   string `json:"causation_id,omitempty"`
}

// Timeline records hops, so that what a call has caused can be looked at
// afterwards. Nobody waits for it: a hop that finds no place is counted and left
// out. Record may be called concurrently; a nil Timeline records nothing.
type Timeline struct {
	js    jetstream.JetStream
	queue chan hop
	rate  *rate.Limiter
	lost  prometheus.Counter
	told  func(contextkit.RequestContext, Hop) // nil: nobody is
}

type hop struct {
	rc  contextkit.RequestContext
	hop Hop
}

// NewTimeline returns a timeline; Run must be running.
func NewTimeline(js jetstream.JetStream) (*Timeline, error) {
	async, err := Async(js, hopsPending)
	if err != nil {
		return nil, err
	}
	return &Timeline{
		js: async, queue: make(chan hop, hopQueue), rate: rate.NewLimiter(hopRate, hopRate),
		lost: prometheus.NewCounter(prometheus.CounterOpts{Name: "headgate_timeline_lost_total", Help: "Hops that were left out of the timeline, since there were too many."}),
	}, nil
}

// Tell has told hear of every hop too, those that are left out included. It is called
// before the first is recorded, and must not block.
func (t *Timeline) Tell(told func(contextkit.RequestContext, Hop)) { t.told = told }

// Told reports whether someone hears of every hop.
func (t *Timeline) Told() bool { return t != nil && t.told != nil }

// Describe implements [prometheus.Collector].
func (t *Timeline) Describe(descriptions chan<- *prometheus.Desc) { t.lost.Describe(descriptions) }

// Collect implements [prometheus.Collector].
func (t *Timeline) Collect(metrics chan<- prometheus.Metric) { t.lost.Collect(metrics) }

// Record takes a hop of the call in ctx.
func (t *Timeline) Record(ctx context.Context, h Hop) {
	if t == nil {
		return
	}
	rc, ok := contextkit.FromContext(ctx)
	if !ok {
		return
	}
	if t.told != nil {
		t.told(rc, h)
	}
	if t.rate.Allow() {
		select {
		case t.queue <- hop{rc, h}:
			return
		default:
		}
	}
	t.lost.Inc()
}

// Run publishes the hops of the node until ctx ends, then those recorded before, as far
// as they find a place within a bound.
func (t *Timeline) Run(ctx context.Context, node string) error {
	base := context.WithoutCancel(ctx)
	for {
		select {
		case h := <-t.queue:
			t.publish(base, node, h)
		case <-ctx.Done():
			t.flush(base, node)
			return nil
		}
	}
}

// flush publishes what is recorded, and waits for what is on its way.
func (t *Timeline) flush(ctx context.Context, node string) {
	end := time.Now().Add(hopFlush)
	for len(t.queue) > 0 && time.Now().Before(end) {
		t.publish(ctx, node, <-t.queue)
	}
	t.lost.Add(float64(len(t.queue)))
	select {
	case <-t.js.PublishAsyncComplete():
	case <-time.After(time.Until(end)):
	}
}

func (t *Timeline) publish(ctx context.Context, node string, h hop) {
	h.hop.Node = node
	h.hop.CorrelationID, h.hop.TraceID, h.hop.RequestID, h.hop.CausationID = h.rc.CorrelationID, h.rc.TraceID.String(), h.rc.RequestID, h.rc.CausationID
	data, err := json.Marshal(h.hop)
	if err == nil {
		msg := &nats.Msg{Subject: hopSubject(h.rc.TenantID, h.rc.CorrelationID, h.rc.TraceID.String(), h.rc.RequestID), Header: nats.Header{}, Data: data}
		if err = contextkit.InjectNATS(contextkit.NewContext(ctx, h.rc), msg.Header); err == nil {
			// It waits when too many are on their way; the queue fills, and calls do not.
			_, err = t.js.PublishMsgAsync(msg)
		}
	}
	if err != nil {
		t.lost.Inc()
	}
}

func hopSubject(tenant contextkit.TenantID, correlation, trace, request string) string {
	return hopsSubject(tenant, hopToken(correlation), hopToken(trace), hopToken(request))
}

// hopsSubject takes tokens, of which "*" matches any.
func hopsSubject(tenant contextkit.TenantID, correlation, trace, request string) string {
	name := platformToken
	if !tenant.IsZero() {
		name = tenant.String()
	}
	return "timeline." + name + "." + correlation + "." + trace + "." + request
}

var plainToken = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// hopToken makes an id a subject's token, which may not hold everything.
func hopToken(id string) string {
	if plainToken.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "=" + hex.EncodeToString(sum[:16])
}

// Hops returns the tenant's hops that share a correlation id with the one that id
// is the correlation, trace or request id of, by their start; complete is false
// when there are more than are read. The zero tenant is the platform.
func Hops(ctx context.Context, js jetstream.JetStream, tenant contextkit.TenantID, id string) (hops []Hop, complete bool, err error) {
	token := hopToken(id)
	for _, subject := range []string{
		hopsSubject(tenant, token, "*", "*"), hopsSubject(tenant, "*", token, "*"), hopsSubject(tenant, "*", "*", token),
	} {
		if hops, complete, err = readHops(ctx, js, subject); err != nil {
			return nil, false, err
		}
		if len(hops) > 0 {
			break
		}
	}
	if len(hops) > 0 && hops[0].CorrelationID != id {
		hops, complete, err = readHops(ctx, js, hopsSubject(tenant, hopToken(hops[0].CorrelationID), "*", "*"))
	}
	slices.SortStableFunc(hops, func(a, b Hop) int { return a.Started.Compare(b.Started) })
	return hops, complete, err
}

// maxHopBytes bounds the records that make up a timeline.
const maxHopBytes = 1 << 20

// readHops reads what stands under a subject, up to a bound in number and bytes.
func readHops(ctx context.Context, js jetstream.JetStream, subject string) (hops []Hop, complete bool, err error) {
	errMany, bytes := errors.New("many"), 0
	err = readBatches(ctx, js, StreamTimeline, subject, 1, 0, func(msg *jetstream.RawStreamMsg) error {
		if bytes += len(msg.Data); len(hops) == maxHops || bytes > maxHopBytes {
			return errMany
		}
		var h Hop
		if err := json.Unmarshal(msg.Data, &h); err != nil {
			return nil //nolint:nilerr // not for us to understand
		}
		hops = append(hops, h)
		return nil
	})
	if errors.Is(err, errMany) {
		return hops, false, nil
	}
	return hops, true, err
}
