package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
)

// TestComments_BeginWithTheirIdentifier: the comment of a function, a method or a type outside of tests begins with its
// name (https://go.dev/doc/comment), so that a rename that forgets the comment is noticed.
func TestComments_BeginWithTheirIdentifier(t *testing.T) {
	eachSource(t, func(path string, text []byte) {
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata/") {
			return
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name *ast.Ident, doc *ast.CommentGroup) {
			first, _, _ := strings.Cut(strings.TrimSpace(doc.Text()), " ")
			if first != "" && strings.TrimRight(first, ",.:;") != name.Name && name.Name != "init" {
				t.Errorf("%s: the comment of %s begins with %q", files.Position(doc.Pos()), name.Name, first)
			}
		}
		for _, decl := range file.Decls {
			switch decl := decl.(type) {
			case *ast.FuncDecl:
				check(decl.Name, decl.Doc)
			case *ast.GenDecl:
				if len(decl.Specs) != 1 {
					continue
				}
				if spec, ok := decl.Specs[0].(*ast.TypeSpec); ok {
					check(spec.Name, decl.Doc)
				}
			}
		}
	})
}

// TestTerms_NameTheCode: the field's terms occur in the package that implements them, so that a search finds it.
func TestTerms_NameTheCode(t *testing.T) {
	missing := map[string]string{ // term → folder
		"backpressure":     "internal/rpc/response/",
		"rate limit":       "gateway/limit/",
		"circuit breaker":  "gateway/breaker/",
		"load shedding":    "gateway/policy/",
		"dedupe":           "internal/journal/",
		"lease":            "internal/lease/",
		"leader":           "internal/natshealth/",
		"idempotency key":  "services/aggregate/idempotency/",
		"dead letter":      "internal/deadletter/",
		"rendezvous hash":  "gateway/route/",
		"read-your-writes": "services/projection/",
	}
	eachSource(t, func(path string, text []byte) {
		for term, folder := range missing {
			if strings.HasPrefix(path, folder) && !strings.HasSuffix(path, "_test.go") &&
				strings.Contains(strings.ToLower(string(text)), term) {
				delete(missing, term)
			}
		}
	})
	for term, folder := range missing {
		t.Errorf("no file of %s contains %q", folder, term)
	}
}
