package edge

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"

	"connectrpc.com/connect/v2"
)

// Media types of gRPC-Web, binary and base64. Source:
// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md, "Protocol differences".
const (
	mediaWeb     = "application/grpc-web"
	mediaWebText = "application/grpc-web-text"
)

// WebText serves grpc-web-text, gRPC-Web in base64, which pages use where a browser cannot read a
// binary stream, by translating it for next, which speaks binary gRPC-Web.
func WebText(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		contentType := r.Header.Get("Content-Type")
		suffix, isText := strings.CutPrefix(contentType, mediaWebText)
		if !isText || r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		plain := r.WithContext(r.Context())
		plain.Header = r.Header.Clone()
		plain.Header.Set("Content-Type", mediaWeb+suffix)
		plain.Header.Del("Content-Length")
		if r.ContentLength != 0 {
			plain.Body, plain.ContentLength = &textReader{from: r.Body}, -1
		}
		text := &textWriter{ResponseWriter: w}
		next.ServeHTTP(text, plain)
		text.end()
	})
}

// textReader decodes base64 as it arrives: groups of four characters, each of which may be padded,
// because clients may encode in parts.
type textReader struct {
	from   io.ReadCloser
	text   []byte // not decoded yet
	plain  []byte // not read yet
	failed error
}

// errNotText rejects a body that is not base64.
var errNotText = connect.NewError(connect.CodeInvalidArgument, "the body is not base64")

// Read implements [io.Reader].
func (r *textReader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.failed != nil {
			return 0, r.failed
		}
		var room [4 << 10]byte
		n, err := r.from.Read(room[:])
		r.text = append(r.text, room[:n]...)
		if r.failed = err; errors.Is(err, io.EOF) && len(r.text)%4 != 0 {
			r.failed = errNotText
		}
		if !r.decode() {
			r.failed = errNotText
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// decode decodes the complete groups.
func (r *textReader) decode() bool {
	whole := r.text[:len(r.text)/4*4]
	for len(whole) > 0 {
		n := len(whole)
		if padded := bytes.IndexByte(whole, '='); padded >= 0 {
			n = padded/4*4 + 4
		}
		var err error
		if r.plain, err = base64.StdEncoding.AppendDecode(r.plain, whole[:n]); err != nil {
			return false
		}
		whole = whole[n:]
	}
	r.text = append(r.text[:0], r.text[len(r.text)/4*4:]...)
	return true
}

// Close implements [io.Closer].
func (r *textReader) Close() error { return r.from.Close() }

// textWriter encodes an answer in base64, in parts that end where it is flushed.
type textWriter struct {
	http.ResponseWriter
	begun bool
	left  []byte // less than three bytes
	text  []byte
}

// Unwrap returns the underlying writer for http.ResponseController.
func (w *textWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements [http.ResponseWriter].
func (w *textWriter) WriteHeader(status int) {
	if !w.begun && status >= http.StatusOK {
		w.begun = true
		header := w.Header()
		if suffix, ok := strings.CutPrefix(header.Get("Content-Type"), mediaWeb); ok {
			header.Set("Content-Type", mediaWebText+suffix)
		}
		header.Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements [http.ResponseWriter].
func (w *textWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.left = append(w.left, p...)
	whole := len(w.left) / 3 * 3
	if err := w.encode(w.left[:whole]); err != nil {
		return 0, err
	}
	w.left = append(w.left[:0], w.left[whole:]...)
	return len(p), nil
}

func (w *textWriter) encode(plain []byte) error {
	if len(plain) == 0 {
		return nil
	}
	w.text = base64.StdEncoding.AppendEncode(w.text[:0], plain)
	_, err := w.ResponseWriter.Write(w.text)
	return err
}

// end writes the remaining bytes, with padding.
func (w *textWriter) end() {
	_ = w.encode(w.left) // an error means that the client has disconnected
	w.left = w.left[:0]
}

// FlushError implements http.ResponseController's flush: it sends the remaining bytes, with
// padding.
func (w *textWriter) FlushError() error {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	w.end()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Flush implements [http.Flusher].
func (w *textWriter) Flush() { _ = w.FlushError() } // an error means that the client has disconnected
