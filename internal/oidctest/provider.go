package oidctest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Client is an application that is registered with the provider. It is public: it has no secret.
type Client struct {
	ID string
	// RedirectURIs are where it receives codes, and LogoutURIs where it continues after a logout.
	RedirectURIs, LogoutURIs []string
}

// Provider is a running OpenID provider. Its methods may be called concurrently.
type Provider struct {
	// URL is the issuer: http://127.0.0.1:PORT, and the path of the provider.
	URL string

	server *httptest.Server
	tokens *httptest.Server // a further origin, see [Provider.Split]; nil: there is none
	path   string

	mu       sync.Mutex
	clients  map[string]Client
	user     map[string]any // the claims of the signed-in user; nil: no user is signed in
	access   map[string]any // the claims that access tokens have in addition
	lifetime time.Duration
	keys     []key // the last one signs
	codes    map[string]grant
	refresh  map[string]*session // by refresh token, also used ones
	sessions map[*session]bool   // sessions that have not ended
	discover map[string]any      // members of the discovery document that are replaced
	failing  int                 // the status of all answers; 0: the provider works
	reads    map[string]int      // by path
}

type key struct {
	id      string
	private ed25519.PrivateKey
}

// Start starts a provider whose issuer has the path, such as "/realms/acme" or "/"; it ends with the
// test.
func Start(t testing.TB, path string, clients ...Client) *Provider {
	t.Helper()
	p := New(path, clients...)
	t.Cleanup(p.Close)
	return p
}

// New starts a provider as [Start] does; it ends with [Provider.Close].
func New(path string, clients ...Client) *Provider {
	p := &Provider{
		path:     path,
		clients:  map[string]Client{},
		lifetime: 5 * time.Minute,
		codes:    map[string]grant{},
		refresh:  map[string]*session{},
		sessions: map[*session]bool{},
		discover: map[string]any{},
		reads:    map[string]int{},
	}
	for _, client := range clients {
		p.clients[client.ID] = client
	}
	p.Rotate()
	p.server = httptest.NewServer(p.handler())
	p.URL = p.server.URL + path
	return p
}

// Close stops the provider.
func (p *Provider) Close() {
	p.server.Close()
	if p.tokens != nil {
		p.tokens.Close()
	}
}

// Split serves tokens and their revocation at a further origin from now on, as Google and Cognito do, and returns it.
// It must not be called again, nor concurrently with Close.
func (p *Provider) Split() (origin string) {
	p.tokens = httptest.NewServer(p.handler())
	base := p.tokens.URL + strings.TrimSuffix(p.path, "/")
	p.Announce("token_endpoint", base+"/token")
	p.Announce("revocation_endpoint", base+"/revoke")
	return p.tokens.URL
}

// Register adds or replaces a client, for redirect URIs that are known only after the start.
func (p *Provider) Register(client Client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[client.ID] = client
}

// SignIn signs a user in: claims must have a sub, and are in ID tokens. access are the claims that
// access tokens have in addition. Without claims no user is signed in.
func (p *Provider) SignIn(claims, access map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.user, p.access = maps.Clone(claims), maps.Clone(access)
}

// SetLifetime sets the lifetime of further tokens.
func (p *Provider) SetLifetime(lifetime time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lifetime = lifetime
}

// Rotate signs with a new key from now on, and returns its kid. The former keys stay published.
func (p *Provider) Rotate() (id string) {
	_, private, _ := ed25519.GenerateKey(rand.Reader) // it does not fail (Go 1.24)
	p.mu.Lock()
	defer p.mu.Unlock()
	id = "key-" + strconv.Itoa(len(p.keys)+1) + "-" + rand.Text()[:4]
	p.keys = append(p.keys, key{id, private})
	return id
}

// Retire removes all keys except the one that signs.
func (p *Provider) Retire() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = p.keys[len(p.keys)-1:]
}

// Fail makes the provider answer every request with the HTTP status; 0: it works again.
func (p *Provider) Fail(status int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failing = status
}

// Announce replaces a member of the discovery document.
func (p *Provider) Announce(member string, value any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.discover[member] = value
}

// Reads returns how often the path below the issuer was requested, such as "/jwks".
func (p *Provider) Reads(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reads[path]
}

// Token returns a signed token with the claims, which replace iss, iat and exp; nil leaves one out.
func (p *Provider) Token(claims map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sign(claims, "JWT")
}

// sign returns a signed token; p.mu is held.
func (p *Provider) sign(claims map[string]any, typ string) string {
	now := time.Now()
	all := map[string]any{"iss": p.URL, "iat": now.Unix(), "exp": now.Add(p.lifetime).Unix()}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // claims of a test that are not JSON
	}
	by := p.keys[len(p.keys)-1]
	options := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", by.id)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: by.private}, options)
	if err != nil {
		panic(err) // not reached: the key is valid
	}
	signed, err := signer.Sign(text)
	if err != nil {
		panic(err) // not reached: Ed25519 signs any text
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		panic(err) // not reached: it has one signature
	}
	return compact
}

// handler serves the provider under its path. All answers may be read by pages of any origin, as
// applications in browsers need; authorization is a navigation.
func (p *Provider) handler() http.Handler {
	mux := http.NewServeMux()
	base := p.path
	if base == "/" {
		base = ""
	}
	for _, route := range []struct {
		method, path string
		serve        http.HandlerFunc
	}{
		{http.MethodGet, "/.well-known/openid-configuration", p.configuration},
		{http.MethodGet, "/jwks", p.keySet},
		{http.MethodGet, "/authorize", p.authorize},
		{http.MethodPost, "/token", p.exchange},
		{http.MethodPost, "/revoke", p.revoke},
		{http.MethodGet, "/logout", p.logout},
	} {
		mux.HandleFunc(route.method+" "+base+route.path, p.counted(route.path, route.serve))
		mux.HandleFunc(
			http.MethodOptions+" "+base+route.path, p.counted("", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Access-Control-Allow-Headers", "authorization, content-type")
				w.WriteHeader(http.StatusNoContent)
			}),
		)
	}
	return mux
}

// counted counts the requests of a path, and answers them all alike while the provider fails.
func (p *Provider) counted(path string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.reads[path]++
		failing := p.failing
		p.mu.Unlock()
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Frame-Options", "DENY")
		if failing != 0 {
			http.Error(w, "the provider fails", failing)
			return
		}
		serve(w, r)
	}
}

func (p *Provider) configuration(w http.ResponseWriter, _ *http.Request) {
	base := p.URL
	if p.path == "/" {
		base = p.server.URL
	}
	document := map[string]any{
		"issuer":                                         p.URL,
		"jwks_uri":                                       base + "/jwks",
		"authorization_endpoint":                         base + "/authorize",
		"token_endpoint":                                 base + "/token",
		"revocation_endpoint":                            base + "/revoke",
		"end_session_endpoint":                           base + "/logout",
		"response_types_supported":                       []string{"code"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"EdDSA"},
		"code_challenge_methods_supported":               []string{"S256"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"token_endpoint_auth_methods_supported":          []string{"none"},
		"authorization_response_iss_parameter_supported": true,
	}
	p.mu.Lock()
	maps.Copy(document, p.discover)
	p.mu.Unlock()
	writeJSON(w, http.StatusOK, document)
}

func (p *Provider) keySet(w http.ResponseWriter, _ *http.Request) {
	var set jose.JSONWebKeySet
	p.mu.Lock()
	for _, key := range p.keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{
			Key:       key.private.Public(),
			KeyID:     key.id,
			Algorithm: string(jose.EdDSA),
			Use:       "sig",
		})
	}
	p.mu.Unlock()
	writeJSON(w, http.StatusOK, set)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // an error means that the client has disconnected
}
