package response

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/rpc"
)

const (
	// DefaultPageBytes bounds a page by default.
	DefaultPageBytes = 1 << 20
	// MaxBytes bounds an indivisible response, such as one row or an aggregate's state: gateways reject messages of
	// more than 16 MiB.
	MaxBytes = 15 << 20
	// smallBytes is the size below which a response is not counted: the bound of calls in flight also bounds small
	// responses.
	smallBytes = 64 << 10
	// pageMargin is the part of a page's bytes that is reserved for its token, its position and the fields around the
	// items.
	pageMargin = 8 << 10
	// retryAfter is the delay after which a rejected caller may retry.
	retryAfter = 500 * time.Millisecond
)

// Config bounds the responses of a node. Zero values select the defaults.
type Config struct {
	// PageBytes bounds a page of a list and a message of a stream, 16 KiB to 15 MiB; 0: 1 MiB. A page has at least one
	// item of any size.
	PageBytes int `yaml:"page_bytes"`
	// TenantBytes bounds the memory of responses of one tenant, in bytes; 0: 32 MiB.
	TenantBytes int64 `yaml:"tenant_bytes"`
	// NodeBytes bounds the memory of responses of all tenants, in bytes; 0: 256 MiB.
	NodeBytes int64 `yaml:"node_bytes"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	c = c.withDefaults()
	return errors.Join(
		config.Within("page_bytes", c.PageBytes, 16<<10, MaxBytes),
		config.AtLeast("tenant_bytes", c.TenantBytes, int64(c.PageBytes)),
		config.AtLeast("node_bytes", c.NodeBytes, c.TenantBytes),
	)
}

func (c Config) withDefaults() Config {
	if c.PageBytes == 0 {
		c.PageBytes = DefaultPageBytes
	}
	if c.TenantBytes == 0 {
		c.TenantBytes = 32 << 20
	}
	if c.NodeBytes == 0 {
		c.NodeBytes = 256 << 20
	}
	return c
}

// Limiter bounds the memory of responses that clients have not received yet (backpressure). Its methods may be called
// concurrently.
type Limiter struct {
	config  Config
	refused *prometheus.CounterVec
	bytes   *prometheus.Desc

	mu     sync.Mutex
	total  int64
	tenant map[contextkit.TenantID]int64 // tenants that hold nothing are absent

	waiting bool          // a call of Wait waits for freed
	freed   chan struct{} // closed, and replaced, when bytes are released while waiting is set
}

// NewLimiter returns a limiter, which is also a [prometheus.Collector].
func NewLimiter(config Config) *Limiter {
	l := &Limiter{
		config: config.withDefaults(),
		tenant: map[contextkit.TenantID]int64{},
		freed:  make(chan struct{}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_responses_refused_total",
			Help: "Calls refused because answers held too many bytes, by bound: of the tenant or of the node.",
		}, []string{"bound"}),
		bytes: prometheus.NewDesc("headgate_response_bytes", "Bytes of answers that are held until their calls end.",
			nil, nil),
	}
	l.refused.WithLabelValues(string(boundTenant))
	l.refused.WithLabelValues(string(boundNode))
	return l
}

// PageBytes returns the maximum size of a page's items in bytes. The rest of the configured bound is reserved for the
// fields around the items.
func (l *Limiter) PageBytes() int { return l.config.PageBytes - pageMargin }

// Bounds returns the bounds of one tenant and of the node, in bytes.
func (l *Limiter) Bounds() (tenant, node int64) { return l.config.TenantBytes, l.config.NodeBytes }

// Admit returns RESOURCE_EXHAUSTED if the tenant or the node has reached its bound. It is called before the work for a
// response that may be large.
func (l *Limiter) Admit(tenant contextkit.TenantID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admit(tenant, 1)
}

// Hold counts the bytes of a response until ctx, the context of the call, has ended. It does not count small responses.
// Error: RESOURCE_EXHAUSTED if the tenant or the node would exceed its bound.
func (l *Limiter) Hold(ctx context.Context, tenant contextkit.TenantID, bytes int) error {
	if bytes < smallBytes {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.admit(tenant, int64(bytes)); err != nil {
		return err
	}
	context.AfterFunc(ctx, l.hold(tenant, int64(bytes)))
	return nil
}

// Count is [Limiter.Hold] for a response that must not be rejected, since the command that it answers has taken effect.
// It may exceed the bounds: later responses are rejected instead.
func (l *Limiter) Count(ctx context.Context, tenant contextkit.TenantID, bytes int) {
	if bytes < smallBytes {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	context.AfterFunc(ctx, l.hold(tenant, int64(bytes)))
}

// Wait counts the bytes of a stream's message until release is called, which must be called once. It blocks while the
// tenant or the node would exceed its bound, until ctx ends: then it returns RESOURCE_EXHAUSTED.
func (l *Limiter) Wait(ctx context.Context, tenant contextkit.TenantID, bytes int) (release func(), err error) {
	if bytes == 0 {
		return func() {}, nil
	}
	for {
		l.mu.Lock()
		err, freed := l.full(tenant, int64(bytes)), l.freed
		if err == nil {
			release := l.hold(tenant, int64(bytes))
			l.mu.Unlock()
			return release, nil
		}
		l.waiting = true
		l.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			l.refused.WithLabelValues(string(err.bound)).Inc()
			return nil, err.exhausted()
		}
	}
}

// hold counts bytes until release is called. The caller holds l.mu.
func (l *Limiter) hold(tenant contextkit.TenantID, bytes int64) (release func()) {
	l.total += bytes
	l.tenant[tenant] += bytes
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.total -= bytes
		if l.tenant[tenant] -= bytes; l.tenant[tenant] == 0 {
			delete(l.tenant, tenant)
		}
		if l.waiting {
			close(l.freed)
			l.freed, l.waiting = make(chan struct{}), false
		}
	}
}

// bound names a bound in metrics.
type bound string

const (
	boundTenant bound = "tenant"
	boundNode   bound = "node"
)

// fullError reports that a bound is reached.
type fullError struct {
	bound   bound
	message string
	reason  rpc.ErrorReason
}

var (
	tenantFull = &fullError{
		boundTenant, "the tenant's answers that are not read yet hold too many bytes", rpc.ReasonTenantResponseBytes,
	}
	nodeFull = &fullError{
		boundNode, "the node's answers that are not read yet hold too many bytes", rpc.ReasonNodeResponseBytes,
	}
)

func (e *fullError) exhausted() error {
	return rpc.WithDetails(
		connect.NewError(connect.CodeResourceExhausted, e.message+": read them, ask for smaller pages, or try again"),
		&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)}, rpc.Reason(e.reason),
	)
}

// admit returns nil if further bytes are within the bounds. Otherwise it counts the rejection and returns
// RESOURCE_EXHAUSTED. The caller holds l.mu.
func (l *Limiter) admit(tenant contextkit.TenantID, bytes int64) error {
	if full := l.full(tenant, bytes); full != nil {
		l.refused.WithLabelValues(string(full.bound)).Inc()
		return full.exhausted()
	}
	return nil
}

// full returns the bound that further bytes of a tenant would exceed; nil: none. A tenant without counted bytes may
// have one response of any size. The caller holds l.mu.
func (l *Limiter) full(tenant contextkit.TenantID, bytes int64) *fullError {
	held := l.tenant[tenant]
	switch {
	case held > 0 && held+bytes > l.config.TenantBytes:
		return tenantFull
	case l.total > 0 && l.total+bytes > l.config.NodeBytes:
		return nodeFull
	}
	return nil
}

// TooLarge returns RESOURCE_EXHAUSTED if an indivisible response exceeds [MaxBytes], and nil otherwise.
func TooLarge(what string, bytes int) error {
	if bytes <= MaxBytes {
		return nil
	}
	return rpc.WithDetails(
		connect.Errorf(connect.CodeResourceExhausted, "%s has %d bytes; an answer has at most %d", what, bytes,
			MaxBytes),
		rpc.Reason(rpc.ReasonResponseTooLarge),
	)
}

// Held returns the bytes that are currently counted for all tenants.
func (l *Limiter) Held() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// Describe implements [prometheus.Collector].
func (l *Limiter) Describe(descriptions chan<- *prometheus.Desc) {
	descriptions <- l.bytes
	l.refused.Describe(descriptions)
}

// Collect implements [prometheus.Collector].
func (l *Limiter) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(l.bytes, prometheus.GaugeValue, float64(l.Held()))
	l.refused.Collect(metrics)
}

// Page counts the bytes of a page's items. The zero value has room for one item.
type Page struct {
	// Bytes bounds the size of the items, see [Limiter.PageBytes].
	Bytes int

	used int
	any  bool
}

// NewPage returns a page of at most [DefaultPageBytes], including the fields around the items.
func NewPage() Page { return Page{Bytes: DefaultPageBytes - pageMargin} }

// Add adds an item of a size and returns true, or returns false if the page has no room for it. The first item always
// fits.
func (p *Page) Add(size int) bool {
	if p.any && p.used+Item(size) > p.Bytes {
		return false
	}
	p.any = true
	p.used += Item(size)
	return true
}

// Used returns the size of the items in bytes.
func (p *Page) Used() int { return p.used }
