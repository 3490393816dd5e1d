package gateway_test

import (
	"fmt"
	"net/http"
	"testing"
)

// Decoding follows google/api/http.proto: a variable of one segment is decoded completely, one of
// several except for escaped slashes; literals are compared decoded; a path with empty segments is
// not redirected.
func TestREST_PathsAreDecodedByHTTPRules(t *testing.T) {
	s := newShapes(t, nil)
	for path, want := range map[string]string{
		"/shapes/v1/items/a%20b":                  "a b",
		"/shapes/v1/items/a%2Fb":                  "a/b",
		"/shapes/v1/items/a+b":                    "a+b",
		"/shapes/v1/items/100%25":                 "100%",
		"/shapes/v1/items/Zo%C3%AB":               "Zoë",
		"/shapes/v1/items/a:b":                    "a:b",
		"/shapes/v1/%69tems/a":                    "a",
		"/shapes/v1/items/a%3Fb%23c":              "a?b#c",
		"/shapes/v1/items/a%2Fb:peek":             "a/b",
		"/shapes/v1/items/a:p%65ek":               "a",
		"/shapes/v1/items/a%3Apeek":               "a:peek",
		"/shapes/v1/shelves/a%20b/books/c%2Fd":    "shelves/a b/books/c%2Fd",
		"/shapes/v1/shelves/a%20b/books/c%2fd":    "shelves/a b/books/c%2fd",
		"/shapes/v1/sh%65lves/1/books/2":          "shelves/1/books/2",
		"/shapes/v1/files/a%20b":                  "a b",
		"/shapes/v1/files/a%2Fb":                  "a%2Fb",
		"/shapes/v1/files/a/b":                    "a/b",
		"/shapes/v1/files/a%20b/c%2Fd/e":          "a b/c%2Fd/e",
		"/shapes/v1/files/a/b:peek":               "a/b",
		"/shapes/v1/files/a//b":                   "a//b",
		"/shapes/v1/files//":                      "/",
		"/shapes/v1/files":                        "",
		"/shapes/v1/wild/anything%20at%2Fall/end": "",
	} {
		want = fmt.Sprintf(`{"name":%q}`, want)
		s.gets(t, path, s.send(t, http.MethodGet, path, ""), want)
	}
	for _, path := range []string{
		"/shapes/v1//items", "//shapes/v1/items", "/shapes/v1/items//a", "/shapes/v1/items/",
		"/shapes//v1/items/a%20b%2Fc",
		"/shapes/v1/shelves//books/b", "/shapes/v1/items/../items/a", "/shapes/v1/./items/a", "/shapes/v1/wild//end",
		"/shapes%2Fv1/items",
	} {
		s.refuses(t, path, s.send(t, http.MethodGet, path, ""), http.StatusNotFound, "not_found", "nothing is served")
	}
	s.gets(
		t, "typed variables",
		s.send(t, http.MethodGet, "/shapes/v1/typed/true/-9007199254740993/COLOR_RED/2026-01-31T12:00:00Z", ""),
		`{"aBool":true,"anInt64":"-9007199254740993","color":"COLOR_RED","time":"2026-01-31T12:00:00Z"}`,
	)
	s.gets(t, "nested variables", s.send(t, http.MethodGet, "/shapes/v1/inner/a%2Fb/7", ""),
		`{"inner":{"text":"a/b","number":7}}`)
	s.refuses(
		t, "variable that does not match", s.send(t, http.MethodGet, "/shapes/v1/inner/a/many", ""),
		http.StatusBadRequest,
		"invalid_argument",
		`path: inner.number: \"many\" is not a 32-bit integer`,
	)
}

// A right's resource is compared with the text that the node receives.
func TestREST_NarrowedRightMatchesDecodedPath(t *testing.T) {
	s := newShapes(t, nil)
	narrowed := []string{"Authorization", s.token(t, "acme", "shapes.read:shelves/a+b/*")}
	spaced := []string{"Authorization", s.token(t, "acme", "shapes.read:shelves/a b/*")}
	for path, status := range map[string]int{
		"/shapes/v1/shelves/a%20b/books/1": http.StatusOK,
		"/shapes/v1/files/shelves/a%20b/1": http.StatusOK,
		"/shapes/v1/shelves/a+b/books/1":   http.StatusForbidden,
		"/shapes/v1/shelves/ab/books/1":    http.StatusForbidden,
	} {
		if answer := s.send(t, http.MethodGet, path, "", spaced...); answer.status != status {
			t.Errorf("%s: %d %s, want %d", path, answer.status, answer.text, status)
		}
	}
	for path, status := range map[string]int{
		"/shapes/v1/shelves/a%2Bb/books/1":     http.StatusOK,
		"/shapes/v1/files/shelves/a%2Bb/1":     http.StatusOK,
		"/shapes/v1/items/shelves%2Fa%2Bb%2F1": http.StatusOK,
		"/shapes/v1/shelves/ab/books/1":        http.StatusForbidden,
		"/shapes/v1/files/shelves%2Fa%2Bb/1":   http.StatusForbidden,
		"/shapes/v1/shelves/a%252Bb/books/1":   http.StatusForbidden,
	} {
		if answer := s.send(t, http.MethodGet, path, "", narrowed...); answer.status != status {
			t.Errorf("%s: %d %s, want %d", path, answer.status, answer.text, status)
		}
	}
}

// Invalid UTF-8 is sent in every part of a path and a query.
func TestREST_InvalidUTF8IsRejected(t *testing.T) {
	s := newShapes(t, nil)
	for _, text := range []string{"%FF", "%FE", "%C3", "a%80b", "%ED%A0%80"} {
		for _, path := range []string{
			"/shapes/v1/items/" + text, "/shapes/v1/files/" + text, "/shapes/v1/files/a/" + text,
			"/shapes/v1/shelves/" + text + "/books/b",
			"/shapes/v1/wild/" + text + "/end", "/shapes/v1/inner/" + text + "/1",
			"/shapes/v1/items/" + text + "?a_string=x",
			"/shapes/v1/items?a_string=" + text, "/shapes/v1/items?" + text + "=x", "/shapes/v1/items?tags=" + text,
			"/shapes/v1/items?labels[" + text + "]=x",
			"/shapes/v1/items?string_value=" + text, "/shapes/v1/items?inner.text=" + text,
			"/shapes/v1/items?value=%22" + text + "%22",
		} {
			s.refuses(t, path, s.send(t, http.MethodGet, path, ""), http.StatusBadRequest, "invalid_argument",
				"not valid UTF-8")
		}
	}
}
