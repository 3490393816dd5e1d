package gateway_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/gateway"
)

// unfinished sends a request over HTTP/1.1 with an endless body, and returns the response.
func unfinished(t *testing.T, e *edge, path, contentType, authorization string) (status int, text string) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil { // of the test: it is not waited for
		t.Fatal(err)
	}
	fmt.Fprintf(
		conn, "POST %s HTTP/1.1\r\nHost: edge\r\nContent-Type: %s\r\nContent-Length: 100\r\nAuthorization: %s\r\n\r\n{",
		path, contentType, authorization,
	)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// overHTTP1 are the protocols for a call with one JSON message.
var overHTTP1 = []string{"connect", "rest"}

func TestReceive_SlowRequestIsDeadlineExceeded(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Listen.BodyTimeout = 200 * time.Millisecond })
	for _, name := range overHTTP1 {
		t.Run(name, func(t *testing.T) {
			status, text := unfinished(t, e, forms[name][0], forms[name][1], e.token(t, "acme", "query.read"))
			want := map[string]int{"connect": http.StatusGatewayTimeout, "rest": http.StatusRequestTimeout}[name]
			if status != want || !strings.Contains(text, "the request did not arrive in time") {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}

// Callers without a credential send endless requests.
func TestReceive_DeniedRequestReleasesItsConnection(t *testing.T) {
	e := start(t, func(c *gateway.Config) { c.Listen.BodyTimeout = 400 * time.Millisecond })
	for _, name := range overHTTP1 {
		t.Run(name, func(t *testing.T) {
			status, text := unfinished(t, e, forms[name][0], forms[name][1], "")
			if status != http.StatusUnauthorized || !strings.Contains(text, "no credential") {
				t.Errorf("%d %s", status, text)
			}
		})
	}
}
