package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/contextkit"
)

// Direct is a call that reached a service without passing a gateway.
type Direct struct {
	Ended

	// Principal names the caller: the SPIFFE id, DNS name or common name of its certificate; "" if it
	// has none.
	Principal string
	// ReadOnly reports that the method has no side effects.
	ReadOnly bool
	// Refusal is why the certificate may not call the method; nil: it may.
	Refusal error
}

// DirectFunc is called for each direct call: when a unary call has ended, and when a stream begins, and again if the
// stream's handler panics. The
// request context is that of the call's headers, as far as they are valid. It must not block.
type DirectFunc func(contextkit.RequestContext, Direct)

// passedGateway reports whether a call came through a gateway: it has a header that gateways alone
// write, and its certificate, if clients have certificates, is a gateway's. Calls of gateways themselves
// (health, reflection) and calls from within the process pass none, and count as if they had.
func (s *Server) passedGateway(info *connect.CallInfo, cert *x509.Certificate, procedure string) bool {
	if info.Protocol == ProtocolInProcess || !counts(procedure) {
		return true
	}
	if cert != nil && s.config.Callers != nil && !s.config.Callers.isGateway(cert) {
		return false
	}
	return contextkit.ViaGateway(info.RequestHeader())
}

// admitCallers rejects calls of certificates whose roles may not call the method, as
// PERMISSION_DENIED, before anything of the call is read, and reports direct calls.
func (s *Server) admitCallers(next connect.ServerFunc) connect.ServerFunc {
	callers, report := s.config.Callers, s.config.Direct
	if report == nil {
		report = func(contextkit.RequestContext, Direct) {}
	}
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		info, _ := connect.CallInfoForServerContext(ctx)
		cert := certificateOf(ctx)
		if cert != nil && callers != nil {
			if err := callers.check(cert, spec.Procedure); err != nil {
				s.rejects.Warn().Err(err).Str("procedure", spec.Procedure).Str("certificate", nameOf(cert)).Msg(
					"a call is rejected: the certificate's role may not call the method",
				)
				refused := WithDetails(connect.NewError(connect.CodePermissionDenied, err.Error()),
					Reason(ReasonWrongRole))
				reportDirect(ctx, report, info, cert, spec, time.Now(), err, refused)
				return refused
			}
		}
		if s.config.Direct == nil || s.passedGateway(info, cert, spec.Procedure) {
			return next(ctx, spec, stream)
		}
		began := time.Now()
		if spec.StreamType != connect.StreamTypeUnary {
			reportDirect(ctx, report, info, cert, spec, began, nil, nil)
			err := next(ctx, spec, stream)
			if errors.Is(err, ErrUnfinished) {
				reportDirect(ctx, report, info, cert, spec, began, nil, err)
			}
			return err
		}
		err := next(ctx, spec, stream)
		reportDirect(ctx, report, info, cert, spec, began, nil, err)
		return err
	}
}

func reportDirect(
	ctx context.Context, report DirectFunc, info *connect.CallInfo, cert *x509.Certificate, spec connect.Spec,
	began time.Time, refusal, err error,
) {
	rc, _ := contextkit.Extract(info.RequestHeader()) // a malformed tenant is none
	call := Direct{
		Ended: Ended{Outcome: Outcome{
			Procedure: spec.Procedure,
			Protocol:  info.Protocol,
			Started:   began,
			Took:      time.Since(began),
			Err:       err,
		}},
		Principal: nameOf(cert),
		ReadOnly:  spec.IdempotencyLevel == connect.IdempotencyNoSideEffects,
		Refusal:   refusal,
	}
	call.Server, call.Client = Ends(ctx, info)
	report(rc, call)
}

// nameOf returns the name of a certificate's holder, "" for none.
func nameOf(cert *x509.Certificate) string {
	switch {
	case cert == nil:
		return ""
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	}
	return cert.Subject.CommonName
}
