// Command serve runs the OpenID provider of package oidctest for the tests of the Control UI. It writes the
// addresses of the provider and of its control as JSON to standard output, and ends when its standard input does.
//
// The control, at a loopback address too, takes changes as JSON by POST, and answers the number of sessions and
// how often each path was requested.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/headgate/headgate/internal/oidctest"
)

// change is what the tests change. Absent members change nothing.
type change struct {
	Client *oidctest.Client `json:"client"`
	// User are the claims of the signed-in user; with SignOut, no user is signed in. Access are the
	// claims that access tokens have in addition.
	User    map[string]any `json:"user"`
	Access  map[string]any `json:"access"`
	SignOut bool           `json:"signOut"`
	// Seconds is the lifetime of further tokens.
	Seconds int `json:"seconds"`
	// Fail is the HTTP status of all answers; 0: the provider works.
	Fail *int `json:"fail"`
	// End ends all sessions.
	End bool `json:"end"`
	// Announce are members of the discovery document.
	Announce map[string]any `json:"announce"`
}

func apply(p *oidctest.Provider, c change) {
	if c.Client != nil {
		p.Register(*c.Client)
	}
	if c.User != nil || c.SignOut {
		p.SignIn(c.User, c.Access)
	}
	if c.Seconds > 0 {
		p.SetLifetime(time.Duration(c.Seconds) * time.Second)
	}
	if c.Fail != nil {
		p.Fail(*c.Fail)
	}
	if c.End {
		p.End()
	}
	for member, value := range c.Announce {
		p.Announce(member, value)
	}
}

func main() {
	p := oidctest.New("/realms/corp")
	defer p.Close()
	control := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c change
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		apply(p, c)
		_ = json.NewEncoder(w).Encode(map[string]int{"sessions": p.Sessions(), "tokens": p.Reads("/token")})
	}))
	defer control.Close()
	if err := json.NewEncoder(os.Stdout).Encode(
		map[string]string{"issuer": p.URL, "control": control.URL},
	); err != nil {
		log.Print(err)
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until it is closed
}
