package edge

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestTarget_IsCanonical(t *testing.T) {
	for text, want := range map[string]string{
		"/v1/watch/a":               "/v1/watch/a",
		"/v1/watch/%61":             "/v1/watch/a",
		"/v1/watch/a%2fb":           "/v1/watch/a%2Fb",
		"/v1/watch/a%20b/c:watch":   "/v1/watch/a%20b/c:watch",
		"/v1/watch/a%3Awatch":       "/v1/watch/a%3Awatch",
		"/v1/watch/a'b(c)":          "/v1/watch/a%27b%28c%29",
		"/v1/watch/a%27b%28c%29":    "/v1/watch/a%27b%28c%29",
		"/v1/watch/Zo%c3%ab":        "/v1/watch/Zo%C3%AB",
		"/v1/watch/a?":              "/v1/watch/a",
		"/v1/watch/a?x=1&y=a+b":     "/v1/watch/a?x=1&y=a%20b",
		"/v1/watch/a?x=1&y=a%20b":   "/v1/watch/a?x=1&y=a%20b",
		"/v1/watch/a?x=a%2Bb":       "/v1/watch/a?x=a%2Bb",
		"/v1/watch/a?x=a%26b%3Dc":   "/v1/watch/a?x=a%26b%3Dc",
		"/v1/watch/a?labels[c]=red": "/v1/watch/a?labels%5Bc%5D=red",
	} {
		u, err := url.ParseRequestURI(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := target(u); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func FuzzExtractTicket(f *testing.F) {
	for _, query := range []string{
		"headgate_ticket=x", "a=1&headgate_ticket=x&b=%20+", "headgate%5Fticket=x", "%68eadgate_ticket", "a=%zz&&;=",
		"headgate_ticket=a&headgate_ticket=b",
	} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		req := httptest.NewRequest(http.MethodGet, "/v1/watch/a", nil)
		req.URL.RawQuery = query
		if req.URL.Query().Has(TicketParameter) && !hasTicket(query) {
			t.Fatalf("%q has a ticket", query)
		}
		rest, ticket, err := extractTicket(req)
		if rest.URL.Query().Has(TicketParameter) || strings.Contains(rest.RequestURI, TicketParameter+"=") {
			t.Errorf("%q keeps its ticket: %q", query, rest.URL.RawQuery)
		}
		if ticket == nil {
			if err != nil || rest != req {
				t.Errorf("%q has no ticket, and is changed: %v", query, err)
			}
			return
		}
		// A canonical query is unchanged, and has the same meaning.
		path, canonical, _ := strings.Cut(ticket.Target, "?")
		again := httptest.NewRequest(http.MethodGet, "/", nil)
		again.URL.Path, again.URL.RawQuery = path, canonical
		if got := target(again.URL); got != ticket.Target {
			t.Errorf("%q is %q, and then %q", query, ticket.Target, got)
		}
	})
}
