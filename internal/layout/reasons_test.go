package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// reasonCell is a reason in the first column of a table of docs/errors.md.
var reasonCell = regexp.MustCompile("(?m)^\\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \\|")

// TestReasons_AreConstantsThatAreDocumented: reasons of errors are constants of internal/rpc, each of which is described
// in docs/errors.md.
func TestReasons_AreConstantsThatAreDocumented(t *testing.T) {
	t.Parallel()
	declared, documented := map[string]bool{}, map[string]bool{}
	eachSource(t, func(path string, text []byte) {
		if strings.HasSuffix(path, "_test.go") {
			return // the nodes of tests use foreign reasons
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.ValueSpec:
				if name, ok := n.Type.(*ast.Ident); !ok || name.Name != "ErrorReason" ||
					path != "internal/rpc/reason.go" {
					return true
				}
				for _, value := range n.Values {
					reason, err := strconv.Unquote(value.(*ast.BasicLit).Value)
					if err != nil || declared[reason] {
						t.Errorf("%s: %q is declared twice, or no string: %v", set.Position(n.Pos()), reason, err)
					}
					declared[reason] = true
				}
			case *ast.CallExpr:
				called, ok := n.Fun.(*ast.SelectorExpr)
				if !ok || len(n.Args) == 0 || called.Sel.Name != "Reason" && called.Sel.Name != "ErrorReason" {
					return true
				}
				if from, ok := called.X.(*ast.Ident); !ok || from.Name != "rpc" {
					return true
				}
				if _, literal := n.Args[0].(*ast.BasicLit); literal {
					t.Errorf("%s: declare the reason in internal/rpc/reason.go", set.Position(n.Pos()))
				}
			}
			return true
		})
	})
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, cell := range reasonCell.FindAllSubmatch(page, -1) {
		for _, reason := range regexp.MustCompile(`[A-Z_]+`).FindAllString(string(cell[1]), -1) {
			if documented[reason] {
				t.Errorf("docs/errors.md describes %s twice", reason)
			}
			documented[reason] = true
		}
	}
	for reason := range declared {
		if !documented[reason] {
			t.Errorf("docs/errors.md lacks %s", reason)
		}
	}
	for reason := range documented {
		if !declared[reason] {
			t.Errorf("docs/errors.md describes %s, which no code has", reason)
		}
	}
	if len(declared) < 40 {
		t.Errorf("%d reasons are declared", len(declared))
	}
}
