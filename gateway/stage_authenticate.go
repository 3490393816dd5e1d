package gateway

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/internal/rpc"
)

const (
	headerAuthorization = "Authorization"
	headerChallenge     = "WWW-Authenticate"
	headerOrigin        = "Origin"
	headerFetchSite     = "Sec-Fetch-Site"
)

// anonymous is the principal of all calls of methods that require no credential.
var anonymous = &auth.Principal{Subject: auth.AnonymousSubject}

// authenticate sets the call's principal from its credential or ticket. A denial has the challenge of
// RFC 9110 §11.6.1 in all protocols.
func (g *Gateway) authenticate(ctx context.Context, call *Call) (context.Context, error) {
	ctx, err := g.identify(ctx, call)
	if err != nil {
		denial := unauthenticated(err)
		call.denied = credentialReason(err)
		call.Info.ResponseHeader().Set(headerChallenge, rpc.Challenge(denial))
		return ctx, denial
	}
	return ctx, nil
}

// identify sets the call's principal.
func (g *Gateway) identify(ctx context.Context, call *Call) (context.Context, error) {
	if ticket := edge.TicketOf(call.Stream); ticket != nil {
		resumed, principal, err := g.redeemTicket(ctx, call, ticket)
		if err != nil {
			return ctx, err
		}
		call.Principal = principal
		return resumed, nil
	}
	if call.Method.Anonymous {
		call.Principal = anonymous
		return ctx, nil
	}
	principal, err := g.principal(ctx, call.end.Started, call.Info.RequestHeader().Values)
	if err != nil {
		return ctx, err
	}
	call.Principal = principal
	return ctx, nil
}

// principal returns the principal of a request at the time now: that of its Authorization header, whose values it has,
// else that of the client's certificate. header returns a header's values.
func (g *Gateway) principal(
	ctx context.Context, now time.Time, header func(string) []string,
) (*auth.Principal, error) {
	authorization := header(headerAuthorization)
	if len(authorization) > 0 || len(g.config.Auth.Authorities) == 0 {
		return g.verifier.Authenticate(ctx, now, authorization)
	}
	chains := rpc.ClientChains(ctx, g.config.Listen.Proxies)
	if len(chains) == 0 {
		return nil, auth.ErrNoCredential
	}
	// A browser sends its user's certificate with requests of any page. It names the page's origin or relation in one
	// of these headers, which pages cannot remove (Fetch §3.2, Fetch Metadata Request Headers §2.4).
	if len(header(headerOrigin)) > 0 || len(header(headerFetchSite)) > 0 {
		return nil, auth.ErrCertificateOfBrowser
	}
	return g.verifier.AuthenticateCertificate(ctx, now, chains)
}

// unauthenticated returns the answer to an invalid credential. The client receives only the class
// of the fault; the cause is logged.
func unauthenticated(err error) *connect.Error {
	public := auth.Public(err)
	answer := connect.NewError(connect.CodeUnauthenticated, public.Error())
	if !errors.Is(public, err) { // err has details
		answer = answer.WithCause(err)
	}
	return rpc.WithDetails(answer, rpc.Reason(credentialReason(err).errorReason()))
}
