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

// Config configures a [Server].
type Config struct {
	// Name is the name of the process in logs and metrics: the kind of the node.
	Name string `yaml:"-"`
	// Addr is the address to listen on, host:port.
	Addr string `yaml:"listen"`
	// GRPC is the address of a further server that only serves gRPC, implemented by grpc-go, which needs less CPU per
	// call than the main one; "": none. It has the same bounds and certificates.
	GRPC string `yaml:"-"`
	// Admin is the address of a further server for the operators of a service, in clear text, which serves metrics,
	// liveness and readiness; "": none. The main address then has no metrics.
	Admin string `yaml:"-"`
	// MaxBodyBytes bounds a decompressed request message. 0: [DefaultMaxBodyBytes].
	MaxBodyBytes int `yaml:"max_body_bytes"`
	// BodyTimeout bounds the time in which the body of a request must arrive; in a stream of requests, the time in
	// which each message must arrive, from its first byte on. 0: [DefaultBodyTimeout].
	BodyTimeout time.Duration `yaml:"body_timeout"`
	// MinBodyRate is the average rate at which they must arrive after the first quarter of BodyTimeout, in bytes per
	// second. 0: [DefaultMinBodyRate]. At the address GRPC only BodyTimeout applies, since grpc-go does not report the
	// progress of a message.
	MinBodyRate int `yaml:"min_body_rate"`
	// WriteTimeout bounds the time for which each 64 KiB of a response, or of a message of a stream of responses, may
	// wait for the client to read. After it the call ends with RESOURCE_EXHAUSTED, its stream is reset (HTTP/2), or its
	// connection is closed (HTTP/1.1). 0: [DefaultWriteTimeout].
	WriteTimeout time.Duration `yaml:"write_timeout"`
	// ShutdownTimeout bounds the time for which a stopping server waits for calls in flight. 0:
	// [DefaultShutdownTimeout].
	ShutdownTimeout time.Duration `yaml:"shutdown_timeout"`
	// MaxStreams bounds the concurrent calls on one HTTP/2 connection, and at an edge also the calls that a client has
	// reset and that have not ended. 0: [DefaultMaxStreams], for a service [DefaultServiceStreams].
	MaxStreams int `yaml:"max_streams"`
	// MaxConnections bounds the connections. 0: [DefaultMaxConnections].
	MaxConnections int `yaml:"max_connections"`
	// MaxClientConnections bounds the connections of one client address (IPv6: one /64); further ones are closed. 0:
	// MaxConnections, at an edge a quarter of it.
	MaxClientConnections int `yaml:"max_client_connections"`
	// MaxClientStreams bounds the calls of one client address over HTTP/2 at both addresses, from their start until
	// their responses are sent completely. If a client exceeds it, its connections with many such calls are closed. 0:
	// at an edge [DefaultMaxClientStreams], otherwise unbounded.
	MaxClientStreams int `yaml:"max_client_streams"`
	// TLS secures the listener; nil: clear text. If it has an authority, clients must present a certificate of the
	// authority (mTLS).
	TLS *tlsfiles.Material `yaml:"-"`
	// ClientAuthorities returns further authorities whose certificates clients may present over TLS, see
	// [ClientChains]; nil: there are none.
	ClientAuthorities func() []*x509.Certificate `yaml:"-"`
	// Callers decides which roles may call a service over mutual TLS; nil: clients with any certificate of the
	// authority may call all methods.
	Callers *Callers `yaml:"-"`
	// LocalHosts makes the server reject requests, at the main address and at Admin, whose Host is the DNS name of
	// another machine. It protects servers that admit every client on machines with browsers (DNS rebinding).
	LocalHosts bool `yaml:"-"`
	// Proxies are the trusted proxies in front of an edge, which send the addresses of clients; nil: none.
	Proxies *proxies.Set `yaml:"-"`
	// Sockets contains addresses that the process has already bound; nil: the server binds its addresses.
	Sockets *Sockets `yaml:"-"`
	// Ended is called after every call of a service, except calls of health and reflection; nil: no function is called.
	// It must not block.
	Ended func(contextkit.RequestContext, Ended) `yaml:"-"`
	// Direct is called for each call of a service that did not come through a gateway; nil: no function is called.
	Direct DirectFunc `yaml:"-"`
	// FastPaths selects the implementations of sockets, deadlines and stacks.
	FastPaths fastpath.Paths `yaml:"-"`
	// Degraded returns the degraded parts for /ready; nil: there are none. An edge uses [Edge].Degraded instead.
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
