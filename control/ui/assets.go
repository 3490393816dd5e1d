package ui

import (
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
)

// index is the application's page.
const index = "index.html"

// minCompressed is the size in bytes from which on a file is compressed.
const minCompressed = 1024

// The levels compress a file of half a megabyte in less than a tenth of a second. Only the two highest of Brotli are
// smaller by more than 1 %, and take ten times as long.
const (
	brotliLevel = 6
	gzipLevel   = gzip.BestCompression
)

// assets are the files of the build. A file is compressed when the first client asks for it with an encoding, and
// stored as long as the process runs: at most once per encoding, and never more bytes than the file has.
type assets struct {
	files      fs.FS
	plain      http.Handler
	compressed map[string]map[string]func() []byte // by name and encoding
}

// newAssets returns the assets of a file system, without compressing any.
func newAssets(files fs.FS) (*assets, error) {
	a := &assets{
		files:      files,
		plain:      http.StripPrefix("/ui/", http.FileServerFS(files)),
		compressed: make(map[string]map[string]func() []byte),
	}
	return a, fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !isText(name) {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() >= minCompressed {
			a.compressed[name] = map[string]func() []byte{
				"br":   sync.OnceValue(func() []byte { return compress(files, name, newBrotli) }),
				"gzip": sync.OnceValue(func() []byte { return compress(files, name, newGzip) }),
			}
		}
		return err
	})
}

// isText reports whether the bytes of a file are not compressed yet, as those of fonts are.
func isText(name string) bool {
	switch path.Ext(name) {
	case ".js", ".css", ".svg", ".html":
		return true
	}
	return false
}

func newBrotli(to io.Writer) (io.WriteCloser, error) {
	return brotli.NewWriterLevel(to, brotliLevel), nil
}

func newGzip(to io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(to, gzipLevel) }

// compress returns a file's compressed bytes; nil if they are not fewer than the file's.
func compress(files fs.FS, name string, writer func(io.Writer) (io.WriteCloser, error)) []byte {
	plain, err := fs.ReadFile(files, name)
	if err != nil {
		return nil
	}
	var to bytes.Buffer
	w, err := writer(&to)
	if err != nil {
		return nil
	}
	if _, err := w.Write(plain); err != nil {
		return nil
	}
	if err := w.Close(); err != nil || to.Len() >= len(plain) {
		return nil
	}
	return bytes.Clone(to.Bytes())
}

// serve answers with a file in the encoding that the client accepts, Brotli before gzip.
func (a *assets) serve(w http.ResponseWriter, r *http.Request, name string) {
	encodings := a.compressed[name]
	h := w.Header()
	if encodings != nil {
		h.Set("Vary", "Accept-Encoding")
	}
	for _, encoding := range []string{"br", "gzip"} {
		if encodings == nil || !accepts(r.Header.Values("Accept-Encoding"), encoding) {
			continue
		}
		if body := encodings[encoding](); body != nil {
			h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
			h.Set("Content-Encoding", encoding)
			h.Set("Content-Length", strconv.Itoa(len(body)))
			if r.Method != http.MethodHead {
				_, _ = w.Write(body) // an error means that the client has disconnected
			}
			return
		}
	}
	if name == index {
		http.ServeFileFS(w, r, a.files, index)
		return
	}
	a.plain.ServeHTTP(w, r)
}

// accepts reports whether the values of Accept-Encoding name an encoding (RFC 9110 §12.5.3); a weight of 0 refuses it.
func accepts(values []string, encoding string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			name, weight, _ := strings.Cut(strings.TrimSpace(part), ";")
			if !strings.EqualFold(strings.TrimSpace(name), encoding) {
				continue
			}
			q, found := strings.CutPrefix(strings.ReplaceAll(weight, " ", ""), "q=")
			number, err := strconv.ParseFloat(q, 64)
			return !found || err == nil && number > 0
		}
	}
	return false
}
