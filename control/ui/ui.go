// Package ui is the Control UI: pages for operators, built from the TypeScript
// beside it and embedded, so that the one binary serves them.
//
// It promises pages that hold no secret and load nothing from elsewhere; what they
// show they ask the gateway for, as any client, under the operator's own
// credential: a token, or one of an OpenID provider at which the operator signs in.
package ui

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed all:dist
var built embed.FS

// SignIn is an OpenID provider at which operators sign in, by the authorization code flow with PKCE
// (RFC 7636) of a public client.
type SignIn struct {
	// Name is the name of the issuer in the gateway's settings; "": the issuer without a name.
	Name string `json:"name"`
	// Issuer is the issuer's URL, byte for byte.
	Issuer string `json:"issuer"`
	// ClientID identifies the Control UI at the provider.
	ClientID string `json:"clientId"`
	// Scopes are requested; openid is one of them.
	Scopes []string `json:"scopes"`
	// Elsewhere returns the current origins, in addition to the issuer's, of the provider's endpoints that the pages
	// call; nil: there are none. An origin that is none is left out.
	Elsewhere func() []string `json:"-"`
}

var (
	// originHost is a host, with a port, that means nothing else in a Content-Security-Policy.
	originHost = regexp.MustCompile(`^([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?$`)
	scope      = regexp.MustCompile(`^[!#-\[\]-~]+$`) // RFC 6749 §3.3
)

// Check returns an error if operators cannot sign in.
func (s SignIn) Check() error {
	if _, err := s.origin(); err != nil {
		return err
	}
	for _, name := range s.Scopes {
		if !scope.MatchString(name) {
			return fmt.Errorf("the scope %.64q has a character that scopes cannot have (RFC 6749 §3.3)", name)
		}
	}
	if !slices.Contains(s.Scopes, "openid") {
		return errors.New("the scope openid is missing")
	}
	return nil
}

// origin returns the origin of the issuer (RFC 6454 §4).
func (s SignIn) origin() (string, error) {
	parsed, err := url.Parse(s.Issuer)
	if err != nil || parsed.Scheme != "https" && parsed.Scheme != "http" || !originHost.MatchString(parsed.Host) {
		return "", fmt.Errorf("the issuer %.128q is not a URL with a host", s.Issuer)
	}
	return parsed.Scheme + "://" + parsed.Host, nil
}

// elsewhere returns the origins of the provider's endpoints that are not at the issuer's.
func (s SignIn) elsewhere() []string {
	if s.Elsewhere == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.Elsewhere()), func(origin string) bool {
		parsed, err := (SignIn{Issuer: origin}).origin()
		return err != nil || parsed != origin
	})
}

// policy returns the Content-Security-Policy of the pages (W3C Content Security Policy Level 3): they
// run their own scripts, and talk to where they come from and to the origins of providers. Styles may stand
// in elements: the chart library sets them.
func policy(signIns []SignIn) (string, error) {
	connect := "connect-src 'self'"
	for _, signIn := range signIns {
		origin, err := signIn.origin()
		if err != nil {
			return "", err
		}
		for _, origin := range append([]string{origin}, signIn.elsewhere()...) {
			if !strings.Contains(connect+" ", " "+origin+" ") {
				connect += " " + origin
			}
		}
	}
	return "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " + connect +
		"; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", nil
}

// signInPath is the path of the providers, for the pages.
const signInPath = "/sign-in.json"

// provider is a provider as the pages read it.
type provider struct {
	SignIn

	// Origins are those of its endpoints that are not at the issuer's.
	Origins []string `json:"origins,omitempty"`
}

// providers returns the providers, for the pages.
func providers(signIns []SignIn) []provider {
	out := make([]provider, len(signIns))
	for i, signIn := range signIns {
		out[i] = provider{signIn, signIn.elsewhere()}
	}
	return out
}

// Handler serves the pages under /ui/. A path that is no file is the application's:
// it gets the page, so that every place in it has an address. signIns, which have been
// checked, are served as JSON at /ui/sign-in.json.
func Handler(signIns ...SignIn) http.Handler {
	if _, err := policy(signIns); err != nil {
		panic(err) // they have been checked
	}
	files, err := fs.Sub(built, "dist")
	if err != nil {
		panic(err) // the directory is embedded
	}
	assets, err := newAssets(files)
	if err != nil {
		panic(err) // the directory is embedded
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		policy, err := policy(signIns)
		if err != nil {
			policy = "default-src 'none'" // not reached: they have been checked
		}
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/ui")
		h.Set("Cache-Control", "no-cache")
		if name == signInPath {
			h.Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(providers(signIns)) // an error means that the client has disconnected
			return
		}
		file := strings.TrimPrefix(name, "/")
		info, err := fs.Stat(files, file)
		isFile := err == nil && !info.IsDir()
		switch isAsset := strings.HasPrefix(name, "/assets/"); {
		case isAsset && isFile:
			h.Set("Cache-Control", "public, max-age=31536000, immutable") // their names change with what is in them
		case isAsset:
			http.NotFound(w, r)
			return
		case !isFile:
			file = index
		}
		assets.serve(w, r, file)
	})
}
