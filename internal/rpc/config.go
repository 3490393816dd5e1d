package rpc

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fastpath"
	"github.com/headgate/headgate/internal/rpc/proxies"
	"github.com/headgate/headgate/internal/tlsfiles"
)

// Config describes a process's listener.
type Config struct {
	// Name of the process in logs and metrics: the kind of a node
	Name string `yaml:"-"`
	// Addr to listen on, host:port.
	Addr string `yaml:"listen"`
	// GRPC is a further address for gRPC alone, on grpc-go's server, which needs less CPU per call
	// than the main one; "": none. It has the same bounds and certificates.
	GRPC string `yaml:"-"`
	// Admin is a further address of a service for operators, in clear text: metrics, liveness and
	// readiness; "" for none. The main address then has no metrics.
	Admin string `yaml:"-"`
	// MaxBodyBytes bounds a request message, decompressed. 0:
	// [DefaultMaxBodyBytes].
	MaxBodyBytes int `yaml:"max_body_bytes"`
	// BodyTimeout bounds how long a request's body may take to arrive, and of a stream
	// of requests each message, from its first byte on. 0: [DefaultBodyTimeout].
	BodyTimeout time.Duration `yaml:"body_timeout"`
	// MinBodyRate is the bytes per second at which they must arrive on average, after the first
	// quarter of BodyTimeout. 0: [DefaultMinBodyRate]. At the gRPC address only BodyTimeout
	// applies: grpc-go does not report how much of a message has arrived.
	MinBodyRate int `yaml:"min_body_rate"`
	// WriteTimeout bounds how long each 64 KiB of an answer, or of a message of a stream of answers, may
	// wait for the client to read. Then the call ends as RESOURCE_EXHAUSTED, its stream is reset over
	// HTTP/2, and its connection is closed over HTTP/1.1. 0: [DefaultWriteTimeout].
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// ShutdownTimeout bounds how long calls in flight may take to end. 0:
	// [DefaultShutdownTimeout].
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// MaxStreams bounds the concurrent calls on one HTTP/2 connection, and at an edge also the
	// calls that a client resets prematurely. 0: [DefaultMaxStreams], for a service
	// [DefaultServiceStreams].
	MaxStreams int `yaml:"max_streams"`
	// MaxConnections bounds the connections. 0: [DefaultMaxConnections].
	MaxConnections int `yaml:"max_connections"`
	// MaxClientConnections bounds the connections of one client address (of IPv6 a /64); further
	// ones are closed. 0: MaxConnections, at an edge a quarter of them.
	MaxClientConnections int `yaml:"max_client_connections"`
	// MaxClientStreams bounds the calls of one client address on HTTP/2 at both addresses, from
	// their start until their responses are sent completely; if a client exceeds it, its
	// connections with many such calls are closed. 0: at an edge [DefaultMaxClientStreams], else
	// none.
	MaxClientStreams int `yaml:"max_client_streams"`
	// TLS secures the listener; nil: clear text. With an authority, clients must present a
	// certificate of it (mTLS).
	TLS *tlsfiles.Material `yaml:"-"`
	// ClientAuthorities returns further authorities whose certificates clients may present over TLS, see
	// [ClientChains]; nil: there are none.
	ClientAuthorities func() []*x509.Certificate `yaml:"-"`
	// Callers decides which roles may call a service over mutual TLS; nil: all certificates of the
	// authority may call all methods.
	Callers *Callers `yaml:"-"`
	// LocalHosts rejects requests at the main address and at Admin whose Host is another machine's DNS
	// name: for servers that admit every client, on machines with browsers.
	LocalHosts bool `yaml:"-"`
	// Proxies are the trusted proxies before an edge, which name the clients' addresses; nil:
	// there are none.
	Proxies *proxies.Set `yaml:"-"`
	// Sockets has addresses that the process has bound already; nil: the server binds its own.
	Sockets *Sockets `yaml:"-"`
	// Ended is called after every call of a service, except health and reflection; nil: it is not. It must
	// not block.
	Ended func(contextkit.RequestContext, Ended) `yaml:"-"`
	// Direct is called for each call of a service that has not passed a gateway; nil: it is not.
	Direct DirectFunc `yaml:"-"`
	// FastPaths selects the implementations of sockets, deadlines and stacks.
	FastPaths fastpath.Paths `yaml:"-"`
	// Degraded returns the parts that /ready reports as degraded; nil: the server has none. The degraded parts of an
	// edge are those of its [Edge].
	Degraded Degraded `yaml:"-"`
}

// Validate returns an error that names the invalid fields.
func (c Config) Validate() error {
	return errors.Join(
		config.AtLeast("max_body_bytes", c.MaxBodyBytes, 0),
		config.AtLeast("body_timeout", c.BodyTimeout, 0),
		config.AtLeast("write_timeout", c.WriteTimeout, 0),
		config.AtLeast("shutdown_timeout", c.ShutdownTimeout, 0),
		config.AtLeast("max_streams", c.MaxStreams, 0),
		config.AtLeast("max_connections", c.MaxConnections, 0),
		config.AtLeast("max_client_connections", c.MaxClientConnections, 0),
		config.AtLeast("max_client_streams", c.MaxClientStreams, 0),
		config.AtLeast("min_body_rate", c.MinBodyRate, 0),
	)
}

// WithDefaults returns the configuration with defaults in place of zero values.
func (c Config) WithDefaults() Config {
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = DefaultMaxBodyBytes
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = DefaultBodyTimeout
	}
	if c.WriteTimeout == 0 {
		c.WriteTimeout = DefaultWriteTimeout
	}
	if c.ShutdownTimeout == 0 {
		c.ShutdownTimeout = DefaultShutdownTimeout
	}
	if c.MaxStreams == 0 {
		c.MaxStreams = DefaultMaxStreams
	}
	if c.MaxConnections == 0 {
		c.MaxConnections = DefaultMaxConnections
	}
	if c.MaxClientConnections == 0 {
		c.MaxClientConnections = c.MaxConnections
	}
	if c.MinBodyRate == 0 {
		c.MinBodyRate = DefaultMinBodyRate
	}
	return c
}

// WithEdgeDefaults is [Config.WithDefaults] for an edge.
func (c Config) WithEdgeDefaults() Config {
	if c.MaxClientConnections == 0 {
		c.MaxClientConnections = max(c.WithDefaults().MaxConnections/edgeClientShare, 1)
	}
	if c.MaxClientStreams == 0 {
		c.MaxClientStreams = DefaultMaxClientStreams
	}
	return c.WithDefaults()
}
