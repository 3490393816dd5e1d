package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/headgate/headgate"

// goPackage is what `go list -json` reports of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// packagesOf returns the packages of this module, without their tests.
func packagesOf(t *testing.T) []goPackage {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...")
	command.Dir = "../.."
	text, err := command.Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %v\n%s", err, failed.Stderr)
		}
		t.Fatal(err)
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// within reports whether a path is a folder or below it.
func within(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// folderOf returns the folder of the table that has a package: the longest one.
func folderOf(path string) string {
	found := ""
	for folder := range mayImport {
		if within(path, folder) && len(folder) > len(found) {
			found = folder
		}
	}
	return found
}

// graph returns, for each folder of the table, the other folders that it imports and one package
// each that does.
func graph(t *testing.T) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, p := range packagesOf(t) {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		from := folderOf(path)
		if from == "" {
			t.Errorf("%s is in no folder of the table: add its folder with what it may import", path)
			continue
		}
		if out[from] == nil {
			out[from] = map[string]string{}
		}
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module+"/") {
				continue
			}
			to := folderOf(strings.TrimPrefix(imported, module+"/"))
			if to != "" && to != from {
				out[from][to] = path
			}
		}
	}
	return out
}

// allowed returns the folders that a folder may import.
func allowed(folder string) []string {
	var out []string
	for _, name := range mayImport[folder] {
		if group, ok := groups[name]; ok {
			out = append(out, group...)
		} else {
			out = append(out, name)
		}
	}
	return out
}

func TestLayout_ImportsPointOneWay(t *testing.T) {
	imports := graph(t)
	for _, from := range slices.Sorted(maps.Keys(mayImport)) {
		if imports[from] == nil {
			t.Errorf("the table has the folder %s, which has no package", from)
		}
		may := allowed(from)
		for _, to := range slices.Sorted(maps.Keys(imports[from])) {
			if !slices.Contains(may, to) {
				t.Errorf("%s imports %s, which %s must not", imports[from][to], to, from)
			}
		}
	}
	for name := range groups {
		for _, folder := range groups[name] {
			if _, ok := mayImport[folder]; !ok {
				t.Errorf("the group %s has %s, which is no folder of the table", name, folder)
			}
		}
	}
	if t.Failed() {
		return
	}
	drawing, err := draw(imports)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + drawing)
}

// draw returns the folders in layers, the lowest last: each imports only folders of layers below
// it. Error: a cycle.
func draw(imports map[string]map[string]string) (string, error) {
	level := map[string]int{}
	var visit func(folder string, above []string) error
	visit = func(folder string, above []string) error {
		if slices.Contains(above, folder) {
			return fmt.Errorf("a cycle of imports: %s", strings.Join(append(above, folder), " → "))
		}
		if _, done := level[folder]; done {
			return nil
		}
		layer := 0
		for _, to := range slices.Sorted(maps.Keys(imports[folder])) {
			if err := visit(to, append(above, folder)); err != nil {
				return err
			}
			layer = max(layer, level[to]+1)
		}
		level[folder] = layer
		return nil
	}
	for _, folder := range slices.Sorted(maps.Keys(imports)) {
		if err := visit(folder, nil); err != nil {
			return "", err
		}
	}
	var out strings.Builder
	for layer := slices.Max(slices.Collect(maps.Values(level))); layer >= 0; layer-- {
		fmt.Fprintf(&out, "layer %d\n", layer)
		for _, folder := range slices.Sorted(maps.Keys(level)) {
			if level[folder] != layer {
				continue
			}
			fmt.Fprintf(&out, "  %-28s", folder)
			if direct := slices.Sorted(maps.Keys(imports[folder])); len(direct) > 0 {
				out.WriteString(" → " + strings.Join(direct, ", "))
			}
			out.WriteByte('\n')
		}
	}
	return out.String(), nil
}

func TestDraw_ReportsACycle(t *testing.T) {
	if _, err := draw(map[string]map[string]string{"a": {"b": "a"}, "b": {"a": "b"}}); err == nil {
		t.Error("a cycle of two folders is accepted")
	}
}
