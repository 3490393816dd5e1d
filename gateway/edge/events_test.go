package edge

import (
	"net/http/httptest"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/policy"
)

// A keep-alive begins the answer while the pipeline adds the node's headers to it.
func TestKeepAlive_WaitsWhileHeadersAreSet(t *testing.T) {
	w := httptest.NewRecorder()
	method := &policy.Method{Spec: connect.Spec{StreamType: connect.StreamTypeServer}}
	e := &events{
		stream: &stream{binding: &binding{method: method}},
		rest:   &REST{keepAlive: time.Hour},
		writer: w,
		form:   formEvents,
	}
	e.keepAlive()
	beaten := make(chan struct{})
	SetHeaders(e, func() {
		if e.mu.TryLock() {
			t.Error("a keep-alive can be written while headers are set")
			e.mu.Unlock()
		}
		go func() {
			defer close(beaten)
			e.writeKeepAlive()
		}()
		e.info.ResponseHeader().Set("X-Node", "a")
	})
	<-beaten
	e.close()
	if got := w.Result().Header.Get("X-Node"); got != "a" || w.Body.String() != ":\n\n" {
		t.Errorf("header %q, body %q", got, w.Body)
	}
}
