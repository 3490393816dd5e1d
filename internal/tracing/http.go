package tracing

import (
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/headgate/headgate/contextkit"
)

// RoundTripper returns next with a CLIENT span for each request whose trace is sampled. The
// span is in the request's context, so next injects it as the parent. A nil Exporter returns
// next.
func (e *Exporter) RoundTripper(next http.RoundTripper) http.RoundTripper {
	if e == nil {
		return next
	}
	return roundTripper{e, next}
}

type roundTripper struct {
	exporter *Exporter
	next     http.RoundTripper
}

// RoundTrip implements [http.RoundTripper]. The span ends with the answer's headers.
func (t roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	rc, ok := contextkit.FromContext(req.Context())
	if !ok || rc.Traceparent.Flags&contextkit.FlagSampled == 0 {
		return t.next.RoundTrip(req)
	}
	child := contextkit.SpanContext(req.Context())
	began := time.Now()
	res, err := t.next.RoundTrip(req.WithContext(child))
	span := Span{
		Name:    req.Method,
		Kind:    trace.SpanKindClient,
		ID:      contextkit.In(child).SpanID,
		Started: began,
		Took:    time.Since(began),
		Attributes: appendAddress(
			[]attribute.KeyValue{semconv.HTTPRequestMethodKey.String(req.Method), semconv.URLFull(plainURL(req.URL))},
			hostPort(req.URL), semconv.ServerAddressKey, semconv.ServerPortKey,
		),
	}
	switch {
	case err != nil:
		span.ErrorType = "connection"
	case res.StatusCode >= 400:
		span.ErrorType = strconv.Itoa(res.StatusCode)
	}
	if res != nil {
		span.Attributes = append(span.Attributes, semconv.HTTPResponseStatusCode(res.StatusCode))
	}
	t.exporter.Record(rc, span)
	return res, err
}

// plainURL returns the URL without user, password and query, which may be secrets.
func plainURL(u *url.URL) string {
	plain := *u
	plain.User, plain.RawQuery, plain.Fragment = nil, "", ""
	return plain.String()
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(u.Hostname(), port)
}
