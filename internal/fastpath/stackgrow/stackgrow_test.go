package stackgrow

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// deep uses depth frames of half a KiB, as a call does that passes interceptors and codecs.
//
//go:noinline
func deep(depth int) byte {
	var frame [512]byte
	if depth == 0 {
		return frame[len(frame)-1]
	}
	frame[depth%len(frame)] = deep(depth - 1)
	return frame[0]
}

// handlers are the fast and the plain implementation.
func handlers() map[string]http.Handler {
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deep(12)
		w.Header().Set("X-Protocol", r.Proto)
		w.WriteHeader(http.StatusTeapot)
	})
	return map[string]http.Handler{"fast": Handler(plain), "plain": plain}
}

func TestHandler_AnswersAsThePlainOne(t *testing.T) {
	for name, handler := range handlers() {
		for protocol, major := range map[string]int{"HTTP/1.1": 1, "HTTP/2.0": 2} {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			request.Proto, request.ProtoMajor = protocol, major
			response := httptest.NewRecorder()
			handler.ServeHTTP(response, request)
			if got := response.Header().Get("X-Protocol"); response.Code != http.StatusTeapot || got != protocol {
				t.Errorf("%s, %s: status %d for %s", name, protocol, response.Code, got)
			}
		}
	}
}

// BenchmarkHandler answers each request on a new goroutine, as net/http does with those of HTTP/2.
func BenchmarkHandler(b *testing.B) {
	request := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	request.ProtoMajor = 2
	for name, handler := range handlers() {
		b.Run(name, func(b *testing.B) {
			done := make(chan struct{})
			for b.Loop() {
				go func() {
					handler.ServeHTTP(httptest.NewRecorder(), request)
					done <- struct{}{}
				}()
				<-done
			}
		})
	}
}
