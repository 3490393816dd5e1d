package main_test

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sources are the type-checked files of a package, without its tests.
type sources struct {
	name      string
	files     []*ast.File
	positions *token.FileSet
	uses      map[*ast.Ident]types.Object
}

// loadSources type-checks all packages of the module at root. Imports are read from the export data that the go
// command has built.
func loadSources(t *testing.T, root string) []sources {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps",
		"-json=ImportPath,Name,Dir,GoFiles,Export,DepOnly", "./...")
	list.Dir, list.Stderr = root, os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	type listed struct {
		ImportPath, Name, Dir, Export string
		GoFiles                       []string
		DepOnly                       bool
	}
	var own []listed
	export := map[string]string{}
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		export[p.ImportPath] = p.Export
		if !p.DepOnly {
			own = append(own, p)
		}
	}
	positions := token.NewFileSet()
	imports := importer.ForCompiler(positions, "gc",
		func(path string) (io.ReadCloser, error) { return os.Open(export[path]) })
	var all []sources
	for _, p := range own {
		loaded := sources{name: p.Name, positions: positions, uses: map[*ast.Ident]types.Object{}}
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(positions, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			loaded.files = append(loaded.files, file)
		}
		config := types.Config{Importer: imports}
		if _, err := config.Check(p.ImportPath, positions, loaded.files, &types.Info{Uses: loaded.uses}); err != nil {
			t.Fatalf("%s: %v", p.ImportPath, err)
		}
		all = append(all, loaded)
	}
	return all
}
