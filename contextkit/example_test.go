package contextkit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/nats-io/nats.go"

	"github.com/headgate/headgate/contextkit"
)

// A service takes the contract out of each request, and its client passes it on: the tenant and the correlation id
// travel without a line in the handlers between.
func Example() {
	inner := httptest.NewServer(
		contextkit.HTTPMiddleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			rc, _ := contextkit.FromContext(r.Context())
			fmt.Println("inner service:", rc.TenantID, rc.CorrelationID)
		})),
	)
	defer inner.Close()
	client := &http.Client{Transport: contextkit.HTTPTransport(http.DefaultTransport)}
	outer := httptest.NewServer(
		contextkit.HTTPMiddleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, inner.URL, nil)
			if err != nil {
				panic(err)
			}
			res, err := client.Do(req)
			if err != nil {
				panic(err)
			}
			_ = res.Body.Close()
		})),
	)
	defer outer.Close()

	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, outer.URL, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set(contextkit.HeaderTenantID, "acme")
	req.Header.Set(contextkit.HeaderCorrelationID, "order-17")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	_ = res.Body.Close()
	fmt.Println("response:", res.Header.Get(contextkit.HeaderCorrelationID))
	// Output:
	// inner service: acme order-17
	// response: order-17
}

// A message carries the context of the call that has caused it. Without a tenant, or the explicit platform scope,
// nothing is published.
func ExampleInjectNATS() {
	tenant, err := contextkit.ParseTenantID("acme")
	if err != nil {
		panic(err)
	}
	msg := &nats.Msg{Subject: "events.acme.order.17", Header: nats.Header{}}
	fmt.Println(contextkit.InjectNATS(context.Background(), msg.Header) != nil)
	fmt.Println(contextkit.InjectNATS(contextkit.TenantContext(context.Background(), tenant), msg.Header))
	rc, err := contextkit.ExtractNATS(msg.Header)
	fmt.Println(rc.TenantID, err)
	// Output:
	// true
	// <nil>
	// acme <nil>
}

func ExampleParseTenantID() {
	for _, name := range []string{"acme", "acme.corp"} {
		_, err := contextkit.ParseTenantID(name)
		fmt.Println(name, errors.Is(err, contextkit.ErrInvalidTenant))
	}
	// Output:
	// acme false
	// acme.corp true
}

// Values that may be any text travel percent-encoded in headers.
func ExampleEncodeText() {
	value := contextkit.EncodeText("Zoë")
	fmt.Println(value, contextkit.DecodeText(value))
	// Output: Zo%C3%AB Zoë
}
