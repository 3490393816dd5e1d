package h2

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/tlsfiles"
	"github.com/headgate/headgate/internal/tlsfiles/tlstest"
)

func TestTLS_PeerIsVerified(t *testing.T) {
	eachClient(t, func(t *testing.T, to connecting) {
		authority := tlstest.NewAuthority(t)
		files := authority.Issue(t, t.TempDir(), "node")
		report := func(err error) { t.Error(err) }
		material, err := tlsfiles.Open(files, report)
		if err != nil {
			t.Fatal(err)
		}
		strangers, err := tlsfiles.Open(tlstest.NewAuthority(t).Issue(t, t.TempDir(), "node"), report)
		if err != nil {
			t.Fatal(err)
		}
		node := echo(
			t,
			grpc.Creds(
				credentials.NewTLS(
					&tls.Config{
						MinVersion:         tls.VersionTLS12,
						GetConfigForClient: material.Server(nil).GetConfigForClient,
					},
				),
			),
		)
		old := tlsServer(
			t,
			&tls.Config{
				MinVersion: tls.VersionTLS12,
				GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
					config, err := material.Server(nil).GetConfigForClient(hello)
					if config != nil {
						config = config.Clone()
						config.NextProtos = []string{"http/1.1"}
					}
					return config, err
				},
			},
		)
		for name, row := range map[string]struct {
			address string
			client  func() *tls.Config
			reached bool
		}{
			"a node with a name of ours":        {node, func() *tls.Config { return material.Client("node") }, true},
			"a node with another name":          {node, func() *tls.Config { return material.Client("other") }, false},
			"a node of an authority not ours":   {node, func() *tls.Config { return strangers.Client("node") }, false},
			"a server that speaks HTTP/1 alone": {old, func() *tls.Config { return material.Client("node") }, false},
		} {
			t.Run(name, func(t *testing.T) {
				secured := config()
				secured.TLS = row.client
				got, _, err := ask(t.Context(), to(t, row.address, secured), "who?")
				broken, failed := errors.AsType[*channels.BrokenError](err)
				if reached := err == nil &&
					got == "who?"; reached != row.reached || !reached && (!failed || !broken.Unreached) {
					t.Errorf("%q, %v", got, err)
				}
			})
		}
	})
}

// tlsServer only makes TLS handshakes.
func tlsServer(t *testing.T, config *tls.Config) (address string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(conn, config).HandshakeContext(context.Background()) // the client's error is what counts
		_ = conn.Close()
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}
