package rpc

import (
	"net"
	"net/netip"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"

	"github.com/headgate/headgate/internal/rpc/flood"
	"github.com/headgate/headgate/internal/rpc/proxies"
)

const (
	// edgeClientShare is the share of an edge's connections that one client may have.
	edgeClientShare = 4
	// clientPrefix is the prefix length by which IPv6 addresses count as one client.
	clientPrefix = 64
)

// Client returns the address that a call's client is limited by: its IPv4 address, or the /64
// prefix of its IPv6 address (RFC 6177); the zero value if the transport has none. Of a call that
// a trusted proxy has forwarded it is that of the proxy's client.
func Client(info *connect.CallInfo) netip.Addr {
	if from, ok := info.TransportInfo.(*peer.Peer); ok && info.PeerAddr == "" {
		if addr, ok := from.Addr.(*net.TCPAddr); ok {
			return client(addr.AddrPort().Addr())
		}
	}
	from, err := netip.ParseAddrPort(info.PeerAddr)
	if err != nil {
		return netip.Addr{}
	}
	return client(from.Addr())
}

// ClientText returns the address of the client of a call as text, without port and zone; "" if the
// transport has no addresses. For a call by way of a trusted proxy it is the address of the proxy's
// client. ClientText does not allocate.
func ClientText(info *connect.CallInfo) string { return HostOf(info.PeerAddr) }

// HostOf returns the host of an address host:port, without brackets and zone; "" if it has no port. It
// allocates nothing.
func HostOf(addr string) string {
	host := addr
	if at := strings.LastIndexByte(host, ':'); at >= 0 {
		host = host[:at]
	} else {
		return ""
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if at := strings.IndexByte(host, '%'); at >= 0 {
		host = host[:at]
	}
	return host
}

func client(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if addr.Is4() {
		return addr
	}
	network, err := addr.Prefix(clientPrefix)
	if err != nil {
		return netip.Addr{}
	}
	return network.Addr()
}

// clientLimit bounds the connections of each client address, and their streams. Trusted proxies,
// which have the connections of many clients, are not bounded; the calls of each of their clients
// are.
type clientLimit struct {
	most    int
	streams int // 0: not bounded
	proxies *proxies.Set
	// Refusals of connections, and of calls by way of trusted proxies; nil: they are not counted.
	refused, refusedCalls prometheus.Counter

	mu    sync.Mutex
	known map[netip.Addr]*clientUse
	calls map[netip.Addr]int // in flight, of the clients of trusted proxies
}

// clientUse is what one address uses.
type clientUse struct {
	conns   int // clientLimit.mu is held
	streams *flood.Streams
}

func newClientLimit(most, streams int) *clientLimit {
	return &clientLimit{
		most:    most,
		streams: streams,
		known:   map[netip.Addr]*clientUse{},
		calls:   map[netip.Addr]int{},
	}
}

// watch inspects the frames of a client's connection for floods, above TLS.
func (l *clientLimit) watch(conn net.Conn, flooded func(net.Conn, flood.Kind)) *flood.Conn {
	watched := flood.Server(conn, flooded).Through(writer(conn))
	from, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok || l.streams == 0 {
		return watched
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	// nil: it has been closed, or is a trusted proxy's.
	if use := l.known[client(from.AddrPort().Addr())]; use != nil {
		watched.Bound(use.streams)
	}
	return watched
}

// countRefused counts an edge's refused connections and calls.
func countRefused(s *Server) {
	s.clients.refused = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_client_connections_refused_total",
		Help: "Connections closed because their client address had reached its limit.",
	})
	s.clients.refusedCalls = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_client_calls_refused_total",
		Help: "Calls by way of trusted proxies refused because their client address had reached its limit of calls " +
			"in flight.",
	})
	s.Metrics.Registerer(s.config.Name).MustRegister(s.clients.refused, s.clients.refusedCalls)
}

// countSlow returns a function that counts an edge's requests that were cut off.
func countSlow(s *Server) func() {
	slow := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "headgate_slow_requests_total", Help: "Requests cut off because they arrived too slowly.",
	})
	s.Metrics.Registerer(s.config.Name).MustRegister(slow)
	return slow.Inc
}

// listener returns a listener that has at most most connections open. Further connections wait to be
// accepted; those of a client that has used up its share are closed.
func (l *clientLimit) listener(from net.Listener, most int) net.Listener {
	return &clientListener{
		Listener: from,
		limit:    l,
		places:   make(chan struct{}, most),
		closed:   make(chan struct{}),
	}
}

type clientListener struct {
	net.Listener

	limit  *clientLimit
	places chan struct{} // holds a value for each connection
	once   sync.Once
	closed chan struct{}
}

// Accept implements [net.Listener].
func (l *clientListener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			<-l.places
			return nil, err
		}
		accepted := &clientConn{Conn: conn, listener: l}
		if from, ok := conn.RemoteAddr().(*net.TCPAddr); ok && !l.limit.proxies.Trusts(from.AddrPort().Addr()) {
			accepted.addr = client(from.AddrPort().Addr())
		}
		if l.limit.enter(accepted.addr) {
			return accepted, nil
		}
		if l.limit.refused != nil {
			l.limit.refused.Inc() // before the client notices
		}
		_ = conn.Close() // it has not been used
	}
}

// Close implements [net.Listener].
func (l *clientListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// enter counts a connection of a client, and reports whether the client may have it.
func (l *clientLimit) enter(addr netip.Addr) bool {
	if !addr.IsValid() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	use := l.known[addr]
	if use == nil {
		use = &clientUse{streams: flood.NewStreams(l.streams)}
		l.known[addr] = use
	}
	if use.conns >= l.most {
		return false
	}
	use.conns++
	return true
}

func (l *clientLimit) leave(addr netip.Addr) {
	if !addr.IsValid() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	use := l.known[addr]
	if use.conns--; use.conns == 0 {
		delete(l.known, addr)
	}
}

type clientConn struct {
	net.Conn

	listener *clientListener
	addr     netip.Addr // of the client; the zero value: it has none, or is a trusted proxy
	once     sync.Once
}

// Close implements [io.Closer].
func (c *clientConn) Close() error {
	c.once.Do(func() {
		c.listener.limit.leave(c.addr)
		<-c.listener.places
	})
	return c.Conn.Close()
}

// writer returns the connection below conn that writes: net/http writes each frame of HTTP/2
// on a separate goroutine, whose small stack grows with each layer above it.
func writer(conn net.Conn) net.Conn {
	if c, ok := conn.(*clientConn); ok {
		return c.Conn
	}
	return conn
}
