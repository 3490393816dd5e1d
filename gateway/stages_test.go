package gateway

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"
)

// The pipeline in the package comment, the functions of Gateway.stages and the files of the stages
// agree.
func TestStages_PackageCommentAndFilesAgree(t *testing.T) {
	files := token.NewFileSet()
	source, err := parser.ParseFile(files, "pipeline.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var stages []string
	for _, decl := range source.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "stages" {
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if selected, ok := n.(*ast.SelectorExpr); ok {
					stages = append(stages, selected.Sel.Name)
				}
				return true
			})
		}
	}
	stages = append(stages, "forward")
	doc, err := parser.ParseFile(files, "doc.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(doc.Doc.Text()) {
		if strings.HasPrefix(line, "\t") {
			if listed := strings.Split(strings.TrimSpace(line), " → "); !slices.Equal(listed, stages) {
				t.Errorf("package comment lists %v, want %v", listed, stages)
			}
		}
	}
	for _, stage := range stages {
		text, err := os.ReadFile("stage_" + stage + ".go")
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(text), "func (g *Gateway) "+stage+"(") {
			t.Errorf("stage_%s.go does not define the stage", stage)
		}
	}
}
