package grpcgo

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/headgate/headgate/internal/rpc/flood"
)

// security makes the handshake of a connection, and closes the connection if its peer floods it.
type security struct {
	channel *Channel
	address string
}

// ClientHandshake implements [credentials.TransportCredentials]. The configuration of TLS is that of the moment.
func (s security) ClientHandshake(
	ctx context.Context,
	authority string,
	raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := s.handshake(ctx, authority, raw)
	if err != nil {
		s.channel.failure.Store(&err)
		return nil, nil, err
	}
	s.channel.failure.Store(nil)
	return flood.Client(conn, func(net.Conn, flood.Kind) {}), info, nil // the connection's error reports it
}

func (s security) handshake(
	ctx context.Context,
	authority string,
	raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	config, err := s.channel.config.ClientTLS(s.address)
	switch {
	case err != nil:
		return nil, nil, err
	case config == nil:
		return insecure.NewCredentials().ClientHandshake(ctx, authority, raw)
	}
	// It verifies the name that it takes for the authority, and not the configuration's.
	return credentials.NewTLS(config).ClientHandshake(ctx, config.ServerName, raw)
}

// ServerHandshake implements [credentials.TransportCredentials]; a client makes none.
func (s security) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return insecure.NewCredentials().ServerHandshake(raw)
}

// Info implements [credentials.TransportCredentials].
func (s security) Info() credentials.ProtocolInfo {
	if s.channel.config.TLS == nil {
		return insecure.NewCredentials().Info()
	}
	return credentials.NewTLS(nil).Info()
}

// Clone implements [credentials.TransportCredentials].
func (s security) Clone() credentials.TransportCredentials { return s }

// OverrideServerName implements [credentials.TransportCredentials]: the configuration of TLS has the name.
func (security) OverrideServerName(string) error { return nil }
