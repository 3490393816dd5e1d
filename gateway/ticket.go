package gateway

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/gateway/auth"
	"github.com/headgate/headgate/gateway/edge"
	"github.com/headgate/headgate/gateway/policy"
	gatewayv1 "github.com/headgate/headgate/gen/gateway/v1"
	"github.com/headgate/headgate/internal/token"
)

const (
	// ticketLifetime is the time within which a ticket must open its stream.
	ticketLifetime = 30 * time.Second
	// maxTicket bounds an encoded ticket, in bytes.
	maxTicket = 3 << 10
	// ticketVersion is the version of a ticket's content.
	ticketVersion = 1
	// ticketIDBytes is the length of a ticket's random id.
	ticketIDBytes = 12
)

// tickets seals and opens tickets. A ticket is the credential of one stream of Server-Sent Events,
// which the client sends as a query parameter. Its content is sealed under the secret that all
// gateways share, and bound to the canonical path and query of the stream; nothing is stored per
// ticket.
type tickets struct{ sealer *token.Sealer }

// newTickets returns the tickets of a secret, nil without a secret.
func newTickets(secret []byte) *tickets {
	if len(secret) == 0 {
		return nil
	}
	return &tickets{token.NewSealer(secret, "ticket")}
}

// ticket is the sealed content of a ticket.
type ticket struct {
	Version   int           `json:"v"`
	ID        []byte        `json:"id"`
	Procedure string        `json:"proc"`
	Open      int64         `json:"open"` // end of ticketLifetime, Unix milliseconds
	Delegate  auth.Delegate `json:"for"`
}

var ticketEncoding = base64.RawURLEncoding.Strict()

// seal returns the text of a ticket for a target.
func (t *tickets) seal(content ticket, target string) (string, error) {
	plain, err := json.Marshal(content)
	if err != nil {
		return "", err
	}
	text := ticketEncoding.EncodeToString(t.sealer.Seal(nil, target, plain))
	if len(text) > maxTicket {
		return "", connect.NewError(connect.CodeFailedPrecondition,
			"the credential has too many narrowed rights for the method: use one with fewer")
	}
	return text, nil
}

// open returns the content of a ticket for a target.
func (t *tickets) open(text, target string) (content ticket, err error) {
	if len(text) > maxTicket {
		return content, auth.ErrBadTicket
	}
	sealed, err := ticketEncoding.DecodeString(text)
	if err != nil {
		return content, auth.ErrBadTicket
	}
	plain, err := t.sealer.Open(target, sealed)
	if err != nil {
		return content, auth.ErrBadTicket
	}
	if err := json.Unmarshal(plain, &content); err != nil || content.Version != ticketVersion ||
		len(content.ID) != ticketIDBytes {
		return content, auth.ErrBadTicket
	}
	return content, nil
}

// proof returns the proof that a stream of the ticket sent the event with the id.
func (t *tickets) proof(id []byte, event string) string {
	return ticketEncoding.EncodeToString(t.sealer.Seal(nil, "event:"+string(id)+event, nil))
}

// redeemTicket returns the principal of a ticket, and the context of its tenant. A ticket opens its
// stream within [ticketLifetime]; after that it requires the id of an event that a stream of the
// ticket has sent, which no URL contains.
func (g *Gateway) redeemTicket(
	ctx context.Context, call *Call, sent *edge.Ticket,
) (context.Context, *auth.Principal, error) {
	switch {
	case g.tickets == nil, strings.ContainsAny(sent.Text, "\r\n"):
		return ctx, nil, auth.ErrBadTicket
	case len(call.Info.RequestHeader().Values(headerAuthorization)) > 0:
		return ctx, nil, auth.ErrTwoCredentials
	}
	content, err := g.tickets.open(sent.Text, sent.Target)
	if err != nil {
		return ctx, nil, err
	}
	if content.Procedure != call.Method.Spec.Procedure {
		return ctx, nil, auth.ErrBadTicket
	}
	event, proof, resumes := edge.SplitEventID(sent.LastEventID)
	resumes = resumes && subtle.ConstantTimeCompare([]byte(proof), []byte(g.tickets.proof(content.ID, event))) == 1
	switch {
	case resumes:
		sent.Resume = event
	case sent.LastEventID != "":
		return ctx, nil, auth.ErrBadTicket
	case call.end.Started.UnixMilli() > content.Open:
		return ctx, nil, auth.ErrExpiredTicket
	}
	principal, err := g.verifier.Restore(content.Delegate, call.end.Started)
	if err != nil {
		return ctx, nil, err
	}
	sent.ID = string(content.ID)
	sent.Prove = func(event string) string { return g.tickets.proof(content.ID, event) }
	if len(principal.Tenants) == 1 { // as if a header named it
		rc := *contextkit.In(ctx)
		if !rc.TenantID.IsZero() && rc.TenantID != principal.Tenants[0] {
			return ctx, nil, auth.ErrBadTicket
		}
		rc.TenantID, rc.Platform = principal.Tenants[0], false
		ctx = contextkit.NewContext(ctx, rc)
	}
	return ctx, principal, nil
}

// errSuperseded ends a stream when its ticket opens another stream at the same gateway.
var errSuperseded = errors.New("the ticket opened the stream again")

// chargeTenant charges a call to a tenant that is known to the call's handler only. It rejects the call
// if the caller does not act for the tenant, or if the tenant is suspended or exceeds its rate.
func (g *Gateway) chargeTenant(ctx context.Context, call *Call, tenant contextkit.TenantID) error {
	if _, err := g.enterTenant(ctx, call, tenant); err != nil {
		return err
	}
	if call.scope == scopeTenant { // the credential names it
		return nil
	}
	if err := g.recharge(call); err != nil {
		return err
	}
	_, err := g.quota(ctx, call)
	return err
}

// CreateTicket implements SessionService.
func (s session) CreateTicket(
	ctx context.Context, req *gatewayv1.CreateTicketRequest,
) (*gatewayv1.CreateTicketResponse, error) {
	if s.tickets == nil {
		return nil, connect.NewError(connect.CodeUnimplemented,
			"the gateway issues no tickets: no ticket secret is configured")
	}
	procedure, target, err := s.rest.Load().EventStream(ctx, req.GetPath())
	if err != nil {
		return nil, err
	}
	method, ok := s.table.Load().Method(procedure)
	if !ok || method.Anonymous {
		return nil, connect.NewError(connect.CodeInvalidArgument,
			"path: the stream requires no credential, and so no ticket")
	}
	call := callOf(ctx)
	tenant, err := s.ticketTenant(ctx, call, method, req.GetTenantId())
	if err != nil {
		return nil, err
	}
	delegate, err := s.verifier.Delegate(call.Principal, tenant,
		append([]string{method.Right}, method.NodeRights...)...)
	if err != nil {
		return nil, call.denyCredential(err)
	}
	opens := time.Now().Add(ticketLifetime)
	content := ticket{
		Version:   ticketVersion,
		ID:        make([]byte, ticketIDBytes),
		Procedure: procedure,
		Open:      opens.UnixMilli(),
		Delegate:  delegate,
	}
	_, _ = rand.Read(content.ID) // crypto/rand.Read never fails (Go 1.24)
	text, err := s.tickets.seal(content, target)
	if err != nil {
		return nil, err
	}
	separator := "?"
	if strings.Contains(target, "?") {
		separator = "&"
	}
	res := &gatewayv1.CreateTicketResponse{
		Path:       target + separator + edge.TicketParameter + "=" + text,
		OpenBefore: timestamppb.New(opens),
	}
	if until := call.Principal.Until; !until.IsZero() {
		res.ExpireTime = timestamppb.New(until)
	}
	return res, nil
}

// ticketTenant returns the tenant of a ticket's stream, zero for a stream of the platform, if the caller may open the
// stream. named is the tenant that the request names; "": none.
func (s session) ticketTenant(
	ctx context.Context, call *Call, method *policy.Method, named string,
) (contextkit.TenantID, error) {
	tenant := contextkit.In(ctx).TenantID
	if named != "" {
		var err error
		if tenant, err = contextkit.ParseTenantID(named); err != nil {
			return tenant, connect.Errorf(connect.CodeInvalidArgument, "tenant_id: %v", err)
		}
	}
	switch principal := call.Principal; {
	case !principal.Holds(method.Right):
		return tenant, call.denyAction(method.Right)
	case !method.Tenant:
		if tenant = (contextkit.TenantID{}); !principal.AnyTenant {
			return tenant, call.denyTenant(
				"the stream concerns the platform, and the credential is not for all tenants")
		}
	default:
		if tenant.IsZero() {
			tenant = onlyTenant(principal)
		}
		if tenant.IsZero() {
			return tenant, connect.NewError(connect.CodeInvalidArgument,
				"tenant_id: missing, and the credential is not for exactly one tenant: name the tenant of the stream")
		}
		if err := s.chargeTenant(ctx, call, tenant); err != nil {
			return tenant, err
		}
	}
	return tenant, nil
}
