package rpc_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// TestUnread_AnswersThatAreWrittenAfterTheirHandlerEnd: an answer that net/http writes when its handler has returned
// must be read within write_timeout too: over HTTP/2 its stream is reset with ENHANCE_YOUR_CALM, and over HTTP/1.1 its
// connection is closed. Each is counted, and an answer that its handler gives up is not.
func TestUnread_AnswersThatAreWrittenAfterTheirHandlerEnd(t *testing.T) {
	server, _ := unreadServer(t)
	server.HTTP.HandleFunc("POST /abort", func(w http.ResponseWriter, _ *http.Request) {
		_ = http.NewResponseController(w).Flush() // the client sees the reset that follows
		panic(http.ErrAbortHandler)
	})
	began, ended := make(chan struct{}), make(chan struct{})
	server.HTTP.HandleFunc("POST /canceled", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(began)
		<-r.Context().Done()
		close(ended)
	})
	wait := func(event <-chan struct{}) {
		select {
		case <-event:
		case <-time.After(time.Minute):
			t.Fatal("the call neither begins nor ends")
		}
	}
	counted := func(t *testing.T, want int) {
		t.Helper()
		text := fmt.Sprintf(`headgate_unread_answers_total{port="main",process="endless"} %d`, want)
		if got := metricsOf(t, server); !strings.Contains(got, text) {
			t.Errorf("the metrics have no %s", text)
		}
	}
	isReset := func(t *testing.T, path string, want http2.ErrCode, settings ...http2.Setting) {
		t.Helper()
		conn, framer := rawCall(t, server.Addr(), path, "application/json", []byte("{}"), settings...)
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("the stream is not reset: %v", err)
			}
			if reset, ok := frame.(*http2.RSTStreamFrame); ok {
				if reset.ErrCode != want {
					t.Errorf("%s is reset with %v, want %v", path, reset.ErrCode, want)
				}
				return
			}
		}
	}
	t.Run("HTTP/2 without a window", func(t *testing.T) {
		isReset(t, "/abort", http2.ErrCodeInternal)
		counted(t, 0)
		// A call that its client cancels has no unread answer, also once it could not be written any longer: the next
		// call on another connection takes longer than that.
		_, framer := rawCall(t, server.Addr(), "/canceled", "application/json", []byte("{}"))
		wait(began)
		if err := framer.WriteRSTStream(1, http2.ErrCodeCancel); err != nil {
			t.Fatal(err)
		}
		wait(ended)
		isReset(t, "/nothing", http2.ErrCodeEnhanceYourCalm, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		counted(t, 1)
	})
	t.Run("HTTP/1.1 without reading", func(t *testing.T) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		requests := []byte(strings.Repeat("GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n", 1000))
		for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
			if err := conn.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			switch _, err := conn.Write(requests); {
			case errors.Is(err, os.ErrDeadlineExceeded):
				t.Fatal("the connection stays open, and takes no more requests")
			case err != nil:
				counted(t, 2)
				return
			}
		}
		t.Fatal("the server takes all requests")
	})
	t.Run("HTTP/1.1 that pauses", func(t *testing.T) {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for range 3 {
			if _, err := fmt.Fprint(conn, "GET /nothing HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 4<<10)); n == 0 {
				t.Fatalf("no answer on a connection that was idle for longer than write_timeout: %v", err)
			}
			time.Sleep(250 * time.Millisecond)
		}
	})
}
