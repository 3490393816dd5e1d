package edge

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/headgate/headgate/internal/rpc/compression"
)

func TestEncoding_AnswerUsesAcceptedEncoding(t *testing.T) {
	e := encodings(compression.All())
	text := []byte(strings.Repeat(`{"balance":1}`, 100))
	for accept, want := range map[string]string{
		"": "", "identity": "", "gzip": "gzip", "br": "br", "zstd, gzip;q=0": "zstd", "gzip, br": "gzip", "*": "gzip",
		"*;q=0": "", "gzip;q=0, *": "zstd", "GZIP": "gzip", "gzip;q=no": "", "deflate": "",
	} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		if accept != "" {
			req.Header.Set("Accept-Encoding", accept)
		}
		recorder := httptest.NewRecorder()
		e.write(recorder, req, text)
		if got := recorder.Header().Get("Content-Encoding"); got != want ||
			recorder.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("to %q it answers %q, want %q", accept, got, want)
		}
		back := httptest.NewRequest(http.MethodPost, "/", nil)
		back.Header.Set("Content-Encoding", want)
		call := &stream{
			request:   back,
			body:      io.NopCloser(recorder.Body),
			maxBody:   1 << 20,
			encodings: e,
		}
		if got, err := call.readBody(nil); err != nil || !bytes.Equal(got, text) {
			t.Errorf("to %q: %d bytes come back, %v", accept, len(got), err)
		}
	}
	recorder := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	if e.write(recorder, req, []byte("{}")); recorder.Header().Get("Content-Encoding") != "" {
		t.Error("two bytes are compressed")
	}
}
