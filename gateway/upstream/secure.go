package upstream

import (
	"context"
	"net"

	"github.com/headgate/headgate/chassis/tlsfiles"
	"google.golang.org/grpc/credentials"
)

// Secure returns the credentials of channels whose peers have certificates of
// the material's authority. serverName is the name in them; "": the endpoint's
// host. Each new connection takes the files as they are then.
func Secure(material *tlsfiles.Material, serverName string) credentials.TransportCredentials {
	return secure{material, serverName}
}

type secure struct {
	material   *tlsfiles.Material
	serverName string
}

func (s secure) now() credentials.TransportCredentials {
	return credentials.NewTLS(s.material.Client(s.serverName))
}

// ClientHandshake implements [credentials.TransportCredentials].
func (s secure) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return s.now().ClientHandshake(ctx, authority, conn)
}

// ServerHandshake implements [credentials.TransportCredentials].
func (s secure) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return s.now().ServerHandshake(conn)
}

// Info implements [credentials.TransportCredentials].
func (s secure) Info() credentials.ProtocolInfo { return s.now().Info() }

// Clone implements [credentials.TransportCredentials].
func (s secure) Clone() credentials.TransportCredentials { return s }

// OverrideServerName implements [credentials.TransportCredentials]; the name
// never changes.
func (s secure) OverrideServerName(string) error { return nil }
