package layout

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// promise begins a promise of docs/guarantees.md; shownBy begins the tests that show it.
var (
	promise  = regexp.MustCompile(`(?m)^\*\*([^*]+)\*\*`)
	shownBy  = regexp.MustCompile(`(?ms)^Shown by: (.*?)\.$`)
	testName = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")
	declared = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
)

// promisesWithoutTests are the parts of the page that promise nothing.
var promisesWithoutTests = map[string]bool{"Tested.": true, "Not promised": true}

// TestGuarantees_EachNamesTestsThatExist checks that every promise of docs/guarantees.md names the tests that show it,
// and that the repository has them.
func TestGuarantees_EachNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/guarantees.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	root := os.DirFS("../..")
	err = fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		name := entry.Name()
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (name == "node_modules" || name == "testdata" || len(name) > 2 && name[0] == '.'):
			return fs.SkipDir
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := fs.ReadFile(root, path)
		for _, found := range declared.FindAllSubmatch(text, -1) {
			tests[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	begins := promise.FindAllSubmatchIndex(page, -1)
	if len(begins) < 40 {
		t.Fatalf("%d promises are found", len(begins))
	}
	for n, at := range begins {
		end := len(page)
		if n+1 < len(begins) {
			end = begins[n+1][0]
		}
		title := string(page[at[2]:at[3]])
		line := shownBy.FindSubmatch(page[at[0]:end])
		if line == nil {
			if !promisesWithoutTests[title] {
				t.Errorf(
					"docs/guarantees.md: %q names no test: end it with a paragraph \"Shown by: `TestSubject_Rule`.\"",
					title,
				)
			}
			continue
		}
		named := testName.FindAllSubmatch(line[1], -1)
		if len(named) == 0 {
			t.Errorf("docs/guarantees.md: %q names no test in %q", title, line[1])
		}
		for _, name := range named {
			if !tests[string(name[1])] {
				t.Errorf("docs/guarantees.md: %q names %s, which does not exist", title, name[1])
			}
		}
	}
}
