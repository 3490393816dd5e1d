package contextkit_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/headgate/headgate/contextkit"
)

// contractNames are the names that only this package may write.
var contractNames = map[string]bool{
	"x-tenant-id": true, "tenant-id": true, "x-correlation-id": true, "correlation-id": true, "traceparent": true,
	"tracestate": true,
	"trace-id":   true, "x-request-id": true, "x-causation-id": true, "causation-id": true,
	"x-headgate-principal": true, "x-headgate-client": true, "x-headgate-explain": true, "x-headgate-decision": true,
	"x-headgate-": true,
}

func TestHeaderNames_AreDefinedInThisPackageOnly(t *testing.T) {
	eachFile(t, func(_ string, set *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if text, literal := textOf(n); contractNames[strings.ToLower(text)] {
				t.Errorf("%s writes %s: use contextkit's constant", set.Position(literal.Pos()), literal.Value)
			}
			return true
		})
	})
}

// otherNames are literals that are equal to the name of a kind of nodes and name something else, by file.
var otherNames = map[string]string{
	"internal/journal/read.go":         "aggregate",  // the fault of a header
	"internal/oidctest/serve/main.go":  "control",    // the address that controls the provider
	"internal/node/serve.go":           "gateway",    // the runner's setting
	"internal/streams/streams.go":      "runner",     // a bucket
	"internal/timeline/timeline.go":    "projection", // a kind of spans
	"model/workflow.go":                "aggregate",  // a member of a workflow's command
	"services/aggregate/unfoldable.go": "aggregate",  // a detail of an error
	"services/projection/errors.go":    "aggregate",  // a detail of an error
}

func TestKinds_AreNamedByConstants(t *testing.T) {
	eachFile(t, func(path string, set *token.FileSet, file *ast.File) {
		if strings.HasPrefix(path, "bench/") || strings.HasPrefix(path, "gen/") {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if text, literal := textOf(n); contextkit.Kind(text).Platform() && otherNames[path] != text {
				t.Errorf("%s writes %s: use contextkit's constant of the kind", set.Position(literal.Pos()),
					literal.Value)
			}
			return true
		})
	})
}

func TestParseKind_AcceptsNamesOfOtherServices(t *testing.T) {
	for _, kind := range contextkit.PlatformKinds() {
		if got, err := contextkit.ParseKind(kind.String()); got != kind || err != nil || !kind.Platform() {
			t.Errorf("%s: %q, %v", kind, got, err)
		}
	}
	for name, valid := range map[string]bool{
		"ticker": true, "Orders_v2": true, "a-b": true, "7": true,
		"": false, "a.b": false, "a b": false, "*": false, ">": false, "ä": false, "a/b": false, "a\x00": false,
	} {
		kind, err := contextkit.ParseKind(name)
		if valid && (err != nil || kind.String() != name || kind.Platform()) {
			t.Errorf("%q: %q, %v", name, kind, err)
		}
		if !valid && !errors.Is(err, contextkit.ErrInvalidKind) {
			t.Errorf("%q: %q, %v, want an invalid kind", name, kind, err)
		}
	}
}

// textOf returns the text of a string literal, "" for any other node.
func textOf(n ast.Node) (string, *ast.BasicLit) {
	literal, ok := n.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", nil
	}
	text, err := strconv.Unquote(literal.Value)
	if err != nil {
		return "", nil
	}
	return text, literal
}

// eachFile calls visit with every Go file outside this package, without tests, by its path in the repository.
func eachFile(t *testing.T, visit func(path string, set *token.FileSet, file *ast.File)) {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() &&
			(strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" ||
				path == filepath.Join(root, "contextkit")):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files++
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err == nil {
			path, err = filepath.Rel(root, path)
			visit(filepath.ToSlash(path), set, file)
		}
		return err
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files were read: %v", files, err)
	}
}
