package gateway

import (
	"cmp"
	"net/http"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/breaker"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/limit"
	"github.com/headgate/headgate/gateway/probe"
	"github.com/headgate/headgate/gateway/upstream"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/timeline"
)

// Config describes a gateway.
type Config struct {
	// Listen configures the server for clients.
	Listen rpc.Config
	// Admin is the address of the server for operators: metrics, nodes, profiles. "": a free loopback port.
	Admin string
	// LocalAdmin makes that server reject requests whose Host is the DNS name of another machine.
	LocalAdmin bool
	// Auth configures the accepted credentials.
	Auth auth.Config
	// Platform lists the principals (by [auth.Principal].Subject) whose calls for tenants are calls of the platform,
	// such as the runner's commands: nodes receive [contextkit.HeaderPlatform], and the calls are audited only if they
	// are denied or the method's policy requires it. It has an effect only for principals that act for every tenant.
	// Calls for tenants by other such principals are audited as operators' calls.
	Platform []string
	// Upstream bounds the connections to nodes.
	Upstream upstream.PoolConfig
	// Breakers configures the circuit breakers, which divert calls from failing nodes.
	Breakers breaker.Config
	// Probes configures the health checks of nodes.
	Probes probe.Config
	// MaxTimeout bounds the duration of every call and MaxStreamTimeout that of every server
	// stream, even if the method's policy allows more. 0: 30 s and 1 h.
	MaxTimeout, MaxStreamTimeout time.Duration
	// MaxConcurrent bounds the calls in flight, including those whose request is still arriving.
	// Further calls are rejected, those of low priority first. 0: 4096.
	MaxConcurrent int
	// MaxStreams bounds the server streams in flight, which MaxConcurrent does not count. 0: 16384.
	MaxStreams int
	// MaxBytes bounds the bytes of messages in memory. 0: 512 MiB.
	MaxBytes int64
	// TenantShare is the fraction of MaxConcurrent, MaxStreams and MaxBytes that one tenant may use, above 0 and at
	// most 1. 0: one half.
	TenantShare float64
	// CallerShare is the fraction of these bounds that one principal may use for calls of the platform and for calls
	// whose tenant is not known yet, and one client address for calls without a credential. 0: one sixteenth.
	CallerShare float64
	// Limits is the default quota of a tenant.
	Limits limit.Config
	// Origins are the origins whose pages may call the gateway from a browser. Default: none.
	Origins []Origin
	// HSTS is the Strict-Transport-Security policy for clients that use TLS.
	HSTS HSTS
	// TicketSecret is the secret with which tickets are sealed, shared by all gateways of a platform; nil: the gateway
	// issues no tickets.
	TicketSecret []byte
	// Query configures how the query strings of REST calls are parsed.
	Query edge.Query
	// KeepAlive is the idle time after which a server stream over REST sends a keep-alive. 0: [edge.DefaultKeepAlive];
	// below 0: never.
	KeepAlive time.Duration
	// ForeignOnly makes the gateway serve only the services of descriptor sets and of nodes with reflection, and not
	// the services of the platform.
	ForeignOnly bool
	// Optional lists kinds of nodes that only serve operators: without them a tenant is ready (/ready?tenant=), and
	// they are reported as degraded.
	Optional []contextkit.Kind
	// Degraded returns the degraded parts of the platform, other than kinds of nodes, each with the reason; nil: none.
	// /ready shows them. The gateway owns the returned map.
	Degraded func() map[string]string
	// Drained returns the reason that the gateway is not ready while operators have drained it; nil: they cannot. Its
	// calls are answered nevertheless.
	Drained func() error
	// UI serves the pages of the Control UI under /ui/; nil: no UI.
	UI http.Handler
	// SignIns are the origins that the pages call to sign in, followed while the gateway serves.
	SignIns []*auth.SignInOrigins
	// Timeline records calls that change state or fail; nil: no calls are recorded.
	Timeline *timeline.Recorder
	// OnEnd is called when a call has ended, also if the pipeline has rejected it; nil: no function is called. It must
	// not block.
	OnEnd func(contextkit.RequestContext, Ended)
	// OnUpstreamCall is called for each attempt when an upstream call of a sampled trace has ended; nil: no function is
	// called. It must not block.
	OnUpstreamCall rpc.AskedFunc
}

// Ended describes a call that has ended, with the gateway's decisions on it.
type Ended struct {
	rpc.Ended

	// Principal is the subject of the caller, and Node the id of the node that answered; "": unknown.
	Principal, Node string
	// Attempts is the number of upstream calls.
	Attempts int
	// Request is the HTTP request of a call over REST; zero for other calls.
	Request edge.Request
}

func (c Config) withDefaults() Config {
	c.MaxTimeout = cmp.Or(c.MaxTimeout, defaultMaxTimeout)
	c.MaxStreamTimeout = cmp.Or(c.MaxStreamTimeout, defaultMaxStreamTimeout)
	c.MaxConcurrent = cmp.Or(c.MaxConcurrent, defaultMaxConcurrent)
	c.MaxStreams = cmp.Or(c.MaxStreams, defaultMaxStreams)
	c.MaxBytes = cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.TenantShare = cmp.Or(c.TenantShare, DefaultTenantShare)
	c.CallerShare = cmp.Or(c.CallerShare, DefaultCallerShare)
	return c
}
