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
	// DefaultPageBytes bounds a page that no setting bounds.
	DefaultPageBytes = 1 << 20
	// MaxBytes bounds a single answer that cannot be divided, such as one row or an
	// aggregate's state: gateways refuse messages of more than 16 MiB.
	MaxBytes = 15 << 20
	// smallBytes is the size below which an answer is not counted: the bound on calls in
	// flight also bounds small answers.
	smallBytes = 64 << 10
	// pageMargin is the part of a page's bytes that is reserved for its token, its position
	// and the fields around the rows.
	pageMargin = 8 << 10
	// retryAfter is when a refused caller may try again.
	retryAfter = 500 * time.Millisecond
)

// Config are the bounds of a node's answers. A zero value stands for the default.
type Config struct {
	// PageBytes bounds a page of a list and a message of a stream, 16 KiB to 15 MiB; 0:
	// 1 MiB. A page has at least one item, however large.
	PageBytes int `yaml:"page_bytes"`
	// TenantBytes bounds the bytes of answers that are held for one tenant; 0: 32 MiB.
	TenantBytes int64 `yaml:"tenant_bytes"`
	// NodeBytes bounds those of all tenants; 0: 256 MiB.
	NodeBytes int64 `yaml:"node_bytes"`
}

// Validate reports settings that cannot be used.
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

// Limiter bounds the bytes of answers that a node holds. It may be used concurrently.
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

// NewLimiter returns a limiter. It is a [prometheus.Collector] too.
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

// PageBytes returns the bytes that the items of a page may take. The rest of the configured
// bound is reserved for the fields around them.
func (l *Limiter) PageBytes() int { return l.config.PageBytes - pageMargin }

// Bounds returns the bytes that a tenant, and all tenants, may hold.
func (l *Limiter) Bounds() (tenant, node int64) { return l.config.TenantBytes, l.config.NodeBytes }

// Admit returns nil while the tenant may hold more, else RESOURCE_EXHAUSTED. A caller asks
// before it does the work of an answer that may be large.
func (l *Limiter) Admit(tenant contextkit.TenantID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.admit(tenant, 1)
}

// Hold counts bytes of an answer until ctx, the call's, has ended. Small answers are not
// counted. Error: RESOURCE_EXHAUSTED when the tenant, or the node, holds too much.
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

// Count is [Limiter.Hold] for an answer that must not be refused, since what it describes
// has happened: it may exceed the bounds, and later answers are refused instead.
func (l *Limiter) Count(ctx context.Context, tenant contextkit.TenantID, bytes int) {
	if bytes < smallBytes {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	context.AfterFunc(ctx, l.hold(tenant, int64(bytes)))
}

// Wait counts bytes of a stream's message until release is called, which must be called once.
// It waits until the tenant and the node have room, or ctx ends: then it returns
// RESOURCE_EXHAUSTED.
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

// hold counts bytes until release is called. l.mu is held.
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

// bound is a bound of the bytes of answers, in metrics.
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

// admit returns nil if a tenant may hold further bytes, else RESOURCE_EXHAUSTED, counted.
// l.mu is held.
func (l *Limiter) admit(tenant contextkit.TenantID, bytes int64) error {
	if full := l.full(tenant, bytes); full != nil {
		l.refused.WithLabelValues(string(full.bound)).Inc()
		return full.exhausted()
	}
	return nil
}

// full returns nil if a tenant may hold further bytes. A tenant that holds nothing may
// hold one answer of any size. l.mu is held.
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

// TooLarge returns RESOURCE_EXHAUSTED when the bytes of an indivisible answer exceed
// [MaxBytes], else nil.
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

// Held returns the bytes that are counted now, of all tenants.
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

// Page counts the items of a page until its bytes are used up. The zero value has no room for
// a second item.
type Page struct {
	// Bytes bounds the items, see [Limiter.PageBytes].
	Bytes int

	used int
	any  bool
}

// NewPage returns a page of at most [DefaultPageBytes], the fields around the items included.
func NewPage() Page { return Page{Bytes: DefaultPageBytes - pageMargin} }

// Add adds an item of a size if the page has room for it, and reports whether it has. The
// first item always fits.
func (p *Page) Add(size int) bool {
	if p.any && p.used+Item(size) > p.Bytes {
		return false
	}
	p.any = true
	p.used += Item(size)
	return true
}

// Used returns the bytes of the items.
func (p *Page) Used() int { return p.used }
