package oidctest

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// codeLifetime is the time within which a code must be exchanged (RFC 6749 §4.1.2).
const codeLifetime = time.Minute

// session is a sign-in of a user to a client.
type session struct {
	client       Client
	scope, nonce string
	user, access map[string]any
	current      string // the refresh token that is valid; "": none was issued
}

// grant is what a code stands for.
type grant struct {
	session             *session
	redirect, challenge string
	until               time.Time
}

// authorize answers an authorization request (RFC 6749 §4.1.1, RFC 7636 §4.3) for the signed-in user.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	client, known := p.clients[query.Get("client_id")]
	redirect := query.Get("redirect_uri")
	if !known || !slices.Contains(client.RedirectURIs, redirect) {
		http.Error(w, "unknown client_id or redirect_uri", http.StatusBadRequest) // never redirected
		return
	}
	answer := func(parameters url.Values) {
		target, _ := url.Parse(redirect) // it is registered
		values := target.Query()
		maps.Copy(values, parameters)
		if state := query.Get("state"); state != "" {
			values.Set("state", state)
		}
		values.Set("iss", p.URL) // RFC 9207
		target.RawQuery = values.Encode()
		http.Redirect(w, r, target.String(), http.StatusFound)
	}
	switch {
	case query.Get("response_type") != "code":
		answer(url.Values{"error": {"unsupported_response_type"}})
	case query.Get("code_challenge_method") != "S256" || len(query.Get("code_challenge")) != 43:
		answer(url.Values{"error": {"invalid_request"}, "error_description": {"PKCE with S256 is required"}})
	case !slices.Contains(strings.Fields(query.Get("scope")), "openid"):
		answer(url.Values{"error": {"invalid_scope"}})
	case p.user == nil && query.Get("prompt") == "none":
		answer(url.Values{"error": {"login_required"}})
	case p.user == nil:
		answer(url.Values{"error": {"access_denied"}})
	default:
		code := rand.Text()
		p.codes[code] = grant{
			session: &session{
				client: client,
				scope:  query.Get("scope"),
				nonce:  query.Get("nonce"),
				user:   maps.Clone(p.user),
				access: maps.Clone(p.access),
			},
			redirect:  redirect,
			challenge: query.Get("code_challenge"),
			until:     time.Now().Add(codeLifetime),
		}
		answer(url.Values{"code": {code}})
	}
}

// exchange answers a token request (RFC 6749 §4.1.3, §6).
func (p *Provider) exchange(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse(w, "invalid_request")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch r.PostForm.Get("grant_type") {
	case "authorization_code":
		p.redeemCode(w, r.PostForm)
	case "refresh_token":
		p.redeemRefresh(w, r.PostForm)
	default:
		refuse(w, "unsupported_grant_type")
	}
}

// redeemCode issues the tokens of a code; p.mu is held. A code is valid once.
func (p *Provider) redeemCode(w http.ResponseWriter, form url.Values) {
	code, known := p.codes[form.Get("code")]
	delete(p.codes, form.Get("code"))
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	verifier := base64.RawURLEncoding.EncodeToString(sum[:])
	if !known || time.Now().After(code.until) || form.Get("redirect_uri") != code.redirect ||
		form.Get("client_id") != code.session.client.ID ||
		subtle.ConstantTimeCompare([]byte(verifier), []byte(code.challenge)) != 1 {
		refuse(w, "invalid_grant")
		return
	}
	p.sessions[code.session] = true
	p.issue(w, code.session)
}

// redeemRefresh issues the next tokens of a session; p.mu is held. The reuse of an earlier refresh
// token ends the session.
func (p *Provider) redeemRefresh(w http.ResponseWriter, form url.Values) {
	token := form.Get("refresh_token")
	session := p.refresh[token]
	switch {
	case session == nil || !p.sessions[session] || form.Get("client_id") != session.client.ID:
		refuse(w, "invalid_grant")
	case token != session.current:
		delete(p.sessions, session)
		refuse(w, "invalid_grant")
	default:
		p.issue(w, session)
	}
}

// issue writes the tokens of a session; p.mu is held.
func (p *Provider) issue(w http.ResponseWriter, s *session) {
	id, access := maps.Clone(s.user), maps.Clone(s.user)
	id["aud"] = s.client.ID
	if s.nonce != "" {
		id["nonce"] = s.nonce
	}
	access["aud"], access["client_id"], access["scope"], access["jti"] = s.client.ID, s.client.ID, s.scope, rand.Text()
	maps.Copy(access, s.access)
	answer := map[string]any{
		"token_type":   "Bearer",
		"expires_in":   int(p.lifetime / time.Second),
		"id_token":     p.sign(id, "JWT"),
		"access_token": p.sign(access, "at+jwt"),
		"scope":        s.scope,
	}
	if slices.Contains(strings.Fields(s.scope), "offline_access") {
		s.current = rand.Text()
		p.refresh[s.current] = s
		answer["refresh_token"] = s.current
	}
	writeJSON(w, http.StatusOK, answer)
}

// revoke ends the session of a refresh token (RFC 7009 §2.1); an unknown one is none.
func (p *Provider) revoke(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	if err := r.ParseForm(); err != nil {
		refuse(w, "invalid_request")
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if session := p.refresh[r.PostForm.Get("token")]; session != nil &&
		session.client.ID == r.PostForm.Get("client_id") {
		delete(p.sessions, session)
	}
	w.WriteHeader(http.StatusOK)
}

// End ends all sessions; the user stays signed in.
func (p *Provider) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.sessions)
}

// logout signs the user out and ends all sessions.
func (p *Provider) logout(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	p.mu.Lock()
	client := p.clients[query.Get("client_id")]
	p.user = nil
	clear(p.sessions)
	p.mu.Unlock()
	target := query.Get("post_logout_redirect_uri")
	if target == "" || !slices.Contains(client.LogoutURIs, target) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<!doctype html><title>Signed out</title><p>You are signed out.</p>"))
		return
	}
	if state := query.Get("state"); state != "" {
		target += "?" + url.Values{"state": {state}}.Encode()
	}
	http.Redirect(w, r, target, http.StatusFound)
}

// Sessions returns the number of sessions that have not ended.
func (p *Provider) Sessions() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}

// refuse writes an error of the token endpoint (RFC 6749 §5.2).
func refuse(w http.ResponseWriter, code string) {
	writeJSON(w, http.StatusBadRequest, map[string]string{"error": code})
}
