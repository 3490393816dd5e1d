package layout

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// columns is the longest line, and tabColumns the width of a tab.
const (
	columns    = 120
	tabColumns = 4
)

// eachSource calls visit with every Go file of the repository that is not generated.
func eachSource(t *testing.T, visit func(path string, text []byte)) {
	t.Helper()
	const root = "../.."
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			name := entry.Name()
			if path != root && (name == "gen" || name == "node_modules" || strings.HasPrefix(name, ".")) {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil && !strings.Contains(string(text[:min(len(text), 400)]), "DO NOT EDIT") {
			visit(strings.TrimPrefix(path, root+"/"), text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestLines_EndAtColumn120, except where a text cannot be split: raw strings, among them the tags of fields, texts and
// addresses without a space, and drawings in comments.
func TestLines_EndAtColumn120(t *testing.T) {
	eachSource(t, func(path string, text []byte) {
		var except map[int]bool // lines, once it is needed
		for n, line := range strings.Split(string(text), "\n") {
			if len(line) <= columns-3*tabColumns || width(line) <= columns {
				continue
			}
			if except == nil {
				except = unsplittable(text)
			}
			if !except[n+1] {
				t.Errorf("%s:%d: %d columns, want at most %d", path, n+1, width(line), columns)
			}
		}
	})
}

// width returns the columns of a line.
func width(line string) int {
	columns := 0
	for _, r := range line {
		if r == '\t' {
			columns += tabColumns - columns%tabColumns
		} else {
			columns++
		}
	}
	return columns
}

// unsplittable returns the lines of a file that have a text which cannot be split.
func unsplittable(text []byte) map[int]bool {
	lines := map[int]bool{}
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(text))
	var tokens scanner.Scanner
	tokens.Init(file, text, nil, scanner.ScanComments)
	for {
		position, kind, literal := tokens.Scan()
		if kind == token.EOF {
			return lines
		}
		whole := false
		switch {
		case kind == token.COMMENT:
			whole = strings.HasPrefix(literal, "//\t") || slices.ContainsFunc(strings.Fields(literal), long)
		case kind == token.STRING && literal[0] == '`':
			whole = true
		case kind == token.STRING:
			whole = slices.ContainsFunc(strings.Fields(literal), long)
		}
		if whole {
			for n := range strings.Count(literal, "\n") + 1 {
				lines[set.Position(position).Line+n] = true
			}
		}
	}
}

// long reports whether a word is longer than a third of a line.
func long(word string) bool { return len(word) > columns/3 }

// TestLiterals_HaveOneFieldPerLine: a struct literal with more than three named fields has each on its own line. The
// rows of a table, whose type is the table's, are not such literals.
func TestLiterals_HaveOneFieldPerLine(t *testing.T) {
	eachSource(t, func(path string, text []byte) {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok || literal.Type == nil || len(literal.Elts) <= 3 || !named(literal) {
				return true
			}
			line := set.Position(literal.Lbrace).Line
			for _, field := range literal.Elts {
				start := set.Position(field.Pos()).Line
				if start == line {
					t.Errorf("%s: more than three fields, and not each on its own line", set.Position(literal.Pos()))
					break
				}
				line = set.Position(field.End()).Line
			}
			return true
		})
	})
}

// named reports whether all elements of a literal are fields by name.
func named(literal *ast.CompositeLit) bool {
	if _, table := literal.Type.(*ast.MapType); table {
		return false
	}
	return !slices.ContainsFunc(literal.Elts, func(element ast.Expr) bool {
		field, ok := element.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		_, ok = field.Key.(*ast.Ident)
		return !ok
	})
}
