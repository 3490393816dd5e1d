// Package ui is the Control UI: pages for operators, built from the TypeScript
// beside it and embedded, so that the one binary serves them.
//
// It promises pages that hold no secret and load nothing from elsewhere; what they
// show they ask the gateway for, as any client, under the operator's own
// credential.
package ui

import (
	"embed"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

//go:embed all:dist
var built embed.FS

// policy lets the pages run their own scripts and talk to where they come from, and
// nothing else (W3C Content Security Policy Level 3). Styles may stand in elements:
// the chart library sets them.
const policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the pages under /ui/. A path that is no file is the application's:
// it gets the page, so that every place in it has an address.
func Handler() http.Handler {
	files, err := fs.Sub(built, "dist")
	if err != nil {
		panic(err) // the directory is embedded
	}
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(1024))
	if err != nil {
		panic(err) // the options are constant
	}
	server := http.StripPrefix("/ui/", http.FileServerFS(files))
	return compress(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/ui")
		if strings.HasPrefix(name, "/assets/") {
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // their names change with what is in them
			server.ServeHTTP(w, r)
			return
		}
		h.Set("Cache-Control", "no-cache")
		if info, err := fs.Stat(files, strings.TrimPrefix(name, "/")); err != nil || info.IsDir() {
			http.ServeFileFS(w, r, files, "index.html")
			return
		}
		server.ServeHTTP(w, r)
	}))
}
