package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc/proxies"
)

// Callers decides which roles may call the methods of a service over mutual TLS. A certificate names
// its roles by URIs such as spiffe://example.com/role/gateway among its subject alternative names
// (SPIFFE-ID §2), or by a name that Names lists. Calls from within the process, and over connections
// without certificates of clients, are not checked.
type Callers struct {
	// Names are further certificates of a role, by their DNS names or common name.
	Names map[contextkit.Kind][]string
	// Unnamed admits certificates without a role to all methods.
	Unnamed bool
	// May returns the roles that may call a procedure. [AnyCaller] stands for any certificate.
	May func(procedure string) []contextkit.Kind
}

// AnyCaller stands for every certificate in the results of Callers.May.
const AnyCaller contextkit.Kind = "*"

// rolePath precedes the role in the path of a certificate's URI.
const rolePath = "/role/"

// roles returns the roles of a certificate.
func (c *Callers) roles(cert *x509.Certificate) []contextkit.Kind {
	var roles []contextkit.Kind
	for _, uri := range cert.URIs {
		// An id has no query, no fragment and no escaped characters (SPIFFE-ID §2).
		if uri.Scheme != "spiffe" || uri.RawQuery != "" || uri.Fragment != "" ||
			strings.Contains(uri.EscapedPath(), "%") {
			continue
		}
		if _, role, found := strings.Cut(uri.Path, rolePath); found {
			roles = append(roles, contextkit.Kind(role))
		}
	}
	for role, names := range c.Names {
		for _, name := range names {
			if slices.Contains(cert.DNSNames, name) || len(cert.DNSNames) == 0 && cert.Subject.CommonName == name {
				roles = append(roles, role)
			}
		}
	}
	return roles
}

// check returns why a certificate may not call a procedure, nil if it may.
func (c *Callers) check(cert *x509.Certificate, procedure string) error {
	may := c.May(procedure)
	if slices.Contains(may, AnyCaller) {
		return nil
	}
	roles := c.roles(cert)
	if len(roles) == 0 && c.Unnamed {
		return nil
	}
	for _, role := range roles {
		if slices.Contains(may, role) {
			return nil
		}
	}
	who := "a certificate without a role"
	if len(roles) > 0 {
		who = "the role " + names(roles)
	}
	if len(may) == 0 {
		return fmt.Errorf("%s may not call %s: no role may", who, procedure)
	}
	return fmt.Errorf("%s may not call %s: it is for %s", who, procedure, names(may))
}

// names returns the names of roles, for messages.
func names(roles []contextkit.Kind) string {
	texts := make([]string, len(roles))
	for i, role := range roles {
		texts[i] = role.String()
	}
	return strings.Join(texts, ", ")
}

// isGateway reports whether a certificate is a gateway's, or one that names no role and is admitted.
func (c *Callers) isGateway(cert *x509.Certificate) bool {
	roles := c.roles(cert)
	return slices.Contains(roles, contextkit.KindGateway) || len(roles) == 0 && c.Unnamed
}

// certificateOf returns the verified certificate of the client of a call; nil: it has none.
func certificateOf(ctx context.Context) *x509.Certificate {
	state, _ := connectionOf(ctx)
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	return state.PeerCertificates[0]
}

// ClientChains returns the verified chains of the certificate that the client of an edge's call has presented. nil: it
// has none, or the connection is that of a trusted proxy, whose certificate is not its clients'.
func ClientChains(ctx context.Context, trusted *proxies.Set) [][]*x509.Certificate {
	state, addr := connectionOf(ctx)
	if len(state.VerifiedChains) == 0 {
		return nil
	}
	from, err := netip.ParseAddrPort(addr.String())
	if err != nil || trusted.Trusts(from.Addr()) {
		return nil
	}
	return state.VerifiedChains
}

// connectionOf returns the state of the TLS connection of a call, and the address of its peer; the zero values: it has
// none.
func connectionOf(ctx context.Context) (state tls.ConnectionState, from net.Addr) {
	if conn, ok := contextkit.Carried[*tls.Conn](ctx); ok {
		return conn.ConnectionState(), conn.RemoteAddr()
	}
	if from, ok := peer.FromContext(ctx); ok {
		if info, ok := unwrapAuth[credentials.TLSInfo](from.AuthInfo); ok {
			return info.State, from.Addr
		}
	}
	return state, nil
}
