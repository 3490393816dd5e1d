package edge

import (
	"slices"
	"strings"
	"testing"
)

func TestTemplate_MatchesSegments(t *testing.T) {
	cases := []struct {
		template, path string
		want           []string // nil: no match
	}{
		{"/v1/query/{view}", "/v1/query/wallets", []string{"wallets"}},
		{"/v1/query/{view}", "/v1/query/", nil},
		{"/v1/query/{view}", "/v1/query/a/b", nil},
		{"/v1/query/{view}", "/v1/query/a%2Fb", []string{"a/b"}},
		{"/v1/query/{view}", "/v2/query/wallets", nil},
		{"/v1/{a}/x/{b}", "/v1/1/x/2", []string{"1", "2"}},
		{"/v1/{name=projects/*/things/*}", "/v1/projects/p/things/t", []string{"projects/p/things/t"}},
		{"/v1/{name=projects/*}", "/v1/projects/p/more", nil},
		{"/v1/{path=**}", "/v1/a/b/c", []string{"a/b/c"}},
		{"/v1/{path=**}", "/v1/a%2Fb/c", []string{"a%2Fb/c"}},
		{"/v1/files/{path=**}:read", "/v1/files/a/b:read", []string{"a/b"}},
		{"/v1/files/{id}:read", "/v1/files/a", nil},
		{"/v1/*/x", "/v1/anything/x", []string{}},
		{"/v1/{path=**}", "/v1/a%2Fb", []string{"a%2Fb"}},
		{"/v1/{path=**}", "/v1/a%2fb%20c/%25%2F", []string{"a%2fb c/%%2F"}},
		{"/v1/{path=**}", "/v1", []string{""}},
		{"/v1/{path=**}", "/v1/a//b/", []string{"a//b/"}},
		{"/v1/{path=**}", "/v1/a/../b", nil},
		{"/v1/{name=projects/*/things/*}", "/v1/projects/a%20b/things/c%2Fd", []string{"projects/a b/things/c%2Fd"}},
		{"/v1/{name=projects/*/things/*}", "/v1/%70rojects/a/things/b", []string{"projects/a/things/b"}},
		{"/v1/{name=projects/*/things/*}", "/v1/projects//things/b", nil},
		{"/v1/files/{id}:read", "/v1/files/a%3Aread", nil},
		{"/v1/files/{id}:read", "/v1/files/a%2Fb:r%65ad", []string{"a/b"}},
		{"/v1/files/{id}:read", "/v1/files/:read", nil},
		{"/v1/files/{id}", "/v1/files/a:b", []string{"a:b"}},
		{"/v1/a%20b/{id}", "/v1/a%20b/1", []string{"1"}},
	}
	for _, tc := range cases {
		parsed, err := parseTemplate(tc.template)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := match(parsed, tc.path)
		if ok != (tc.want != nil) || (ok && !slices.Equal(got, tc.want)) {
			t.Errorf("%s on %s: %q, %v; want %q", tc.template, tc.path, got, ok, tc.want)
		}
	}
}

func TestTemplate_InvalidIsRejected(t *testing.T) {
	for _, bad := range []string{
		"", "v1", "/v1/{a", "/v1//x", "/v1/{a=**}/x", "/v1/x/", "/v1/{a=}", "/v1/x:", "/v1/x:a/b",
	} {
		if parsed, err := parseTemplate(bad); err == nil {
			t.Errorf("%q is accepted as %+v", bad, parsed)
		}
	}
}

// match returns the values of a template's variables in a path.
func match(t *template, path string) ([]string, bool) {
	parsed, ok := split(path, nil)
	if !ok || !t.matches(&parsed) {
		return nil, false
	}
	return t.values(&parsed), true
}

func FuzzTemplate(f *testing.F) {
	f.Add("/v1/{name=projects/*/things/*}:go", "/v1/projects/p/things/t:go")
	f.Add("/v1/{path=**}", "/v1/a%2fb")
	f.Fuzz(func(t *testing.T, template, path string) {
		parsed, err := parseTemplate(template)
		if err != nil {
			return
		}
		values, ok := match(parsed, path)
		if !ok {
			return
		}
		if len(values) != len(parsed.variables) || !strings.HasPrefix(path, "/") {
			t.Fatalf("%q on %q: %q", template, path, values)
		}
	})
}
