package gateway_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"

	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	queriesconnect "github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// protocols are the protocols for Query and Submit, each with a plain client that adds no headers.
var protocols = []string{"connect+json", "connect+proto", "connect+get", "grpc", "native grpc", "grpcweb", "rest"}

// client returns a client of the protocol without contextkit: the test writes every header.
func (e *edge) client(protocol string) *connect.Client {
	options := map[string][]connecthttp.Option{
		"connect+json": {connecthttp.WithProtoJSON()}, "connect+proto": {}, "connect+get": {connecthttp.WithHTTPGet()},
		"grpc": {connecthttp.WithGRPC()}, "native grpc": {connecthttp.WithGRPC()},
		"grpcweb": {connecthttp.WithGRPCWeb()},
	}[protocol]
	httpClient, url := e.plain, e.url
	switch protocol {
	case "grpc":
		httpClient = e.h2c
	case "native grpc":
		httpClient, url = e.h2c, e.grpc
	}
	return connect.NewClient(connecthttp.NewTransport(httpClient, url, options...))
}

// result is an answer of any protocol.
type result struct {
	res    *projectionv1.QueryResponse
	code   connect.Code // 0 for none
	err    *connect.Error
	header func(string) string
}

// query calls Query over a protocol with the headers in pairs.
func (e *edge) query(t *testing.T, protocol string, req *projectionv1.QueryRequest, header ...string) result {
	t.Helper()
	if protocol == "rest" {
		return e.queryREST(t, req, header...)
	}
	ctx, info := connect.NewClientContext(t.Context())
	for i := 0; i < len(header); i += 2 {
		info.RequestHeader().Add(header[i], header[i+1])
	}
	res, err := queriesconnect.NewQueryServiceClient(e.client(protocol)).Query(ctx, req)
	out := result{res: res, header: func(name string) string {
		if value := info.ResponseHeader().Get(name); value != "" {
			return value
		}
		return info.ResponseTrailer().Get(name)
	}}
	if err != nil {
		out.code = connect.CodeOf(err)
		errors.As(err, &out.err)
	}
	return out
}

func (e *edge) queryREST(t *testing.T, req *projectionv1.QueryRequest, header ...string) result {
	t.Helper()
	body := map[string]any{}
	if req.GetTenantId() != "" {
		body["tenantId"] = req.GetTenantId()
	}
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	httpReq, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+"/v1/query/"+req.GetView(),
		strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	httpReq.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		httpReq.Header.Add(header[i], header[i+1])
	}
	res, err := e.plain.Do(httpReq)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := result{header: res.Header.Get}
	if res.StatusCode == http.StatusOK {
		out.res = &projectionv1.QueryResponse{}
		if err := connectproto.NewJSONCodec().UnmarshalRead(
			t.Context(), strings.NewReader(string(raw)), out.res,
		); err != nil {
			t.Fatal(err)
		}
		return out
	}
	var refusal struct {
		Code, Message string
		Details       []struct{ Type, Value string }
	}
	if err := json.Unmarshal(raw, &refusal); err != nil {
		t.Fatalf("status %d: %s", res.StatusCode, raw)
	}
	if err := out.code.UnmarshalText([]byte(refusal.Code)); err != nil {
		t.Fatal(err)
	}
	out.err = connect.NewError(out.code, refusal.Message)
	for _, d := range refusal.Details {
		value, err := connect.DecodeBinaryHeader(d.Value)
		if err != nil {
			t.Fatal(err)
		}
		out.err = out.err.WithDetail(&connect.ErrorDetail{Type: d.Type, Value: value})
	}
	return out
}

// http sends a plain request with the headers in pairs; empty values are left out.
func (e *edge) http(t *testing.T, method, path, body string, header ...string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Add(header[i], header[i+1])
		}
	}
	res, err := e.plain.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
