package contextkit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
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
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				return true
			}
			if text, err := strconv.Unquote(literal.Value); err == nil && contractNames[strings.ToLower(text)] {
				t.Errorf("%s writes %s: use contextkit's constant", set.Position(literal.Pos()), literal.Value)
			}
			return true
		})
		return nil
	})
	if err != nil || files < 20 {
		t.Fatalf("%d files were read: %v", files, err)
	}
}
