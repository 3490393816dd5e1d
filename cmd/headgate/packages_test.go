package main_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// Every package but generated ones has one package comment, which begins with its name: "Package name", or "Command
// name" for programs.
func TestPackages_EachHasOneComment(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it runs nothing that the race detector could examine")
	}
	comments, found := map[string][]string{}, map[string]string{}
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		switch {
		case entry.IsDir() &&
			(name == "node_modules" || name == "testdata" || name == "gen" || len(name) > 2 && name[0] == '.'):
			return filepath.SkipDir
		case entry.IsDir(), filepath.Ext(name) != ".go", strings.HasSuffix(name, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if ast.IsGenerated(file) {
			return nil
		}
		found[dir] = file.Name.Name
		if file.Doc != nil {
			comments[dir] = append(comments[dir], file.Doc.Text())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir, name := range found {
		want := "Package " + name + " "
		if name == "main" {
			want = "Command "
		}
		if len(comments[dir]) != 1 || !strings.HasPrefix(comments[dir][0], want) {
			t.Errorf("%s has %d package comments, want one that begins with %q", dir, len(comments[dir]), want)
		}
	}
	if len(found) < 40 {
		t.Errorf("%d packages found", len(found))
	}
}
