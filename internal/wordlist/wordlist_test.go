package wordlist

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var only = flag.String("path", "", "check one folder or file only")

// prose is a file's text with everything that is not prose masked: other bytes than white space
// are 0, so that offsets and lines are the file's.
type prose struct {
	path  string
	text  []byte
	tests []declared // of Go test files
}

// declared is the name of a test function, and its offset.
type declared struct {
	name   string
	offset int
}

func TestWords_AreThoseOfTheGlossary(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads every source, and nothing in it is concurrent")
	}
	files := 0
	used := make([]bool, len(exceptions))
	for _, path := range sources(t) {
		files++
		file := read(t, path)
		for _, found := range file.find(strong) {
			if e := slices.IndexFunc(exceptions, func(e exception) bool { return e.allows(path, found.line) }); e >= 0 {
				used[e] = true
				continue
			}
			t.Errorf("%s:%d: %q: write %s", path, found.number, found.phrase, found.write)
		}
		if testing.Verbose() && *only != "" {
			for _, found := range file.find(advice) {
				t.Logf("advice: %s:%d: %q: better %s", path, found.number, found.phrase, found.write)
			}
		}
	}
	if files == 0 {
		t.Errorf("no file was checked below %q", *only)
	}
	for i, e := range exceptions {
		if !used[i] && *only == "" {
			t.Errorf("no line needs the exception for %s (%s): remove it", e.path, e.reason)
		}
	}
}

// subjectRule is the form of a test's name.
var subjectRule = regexp.MustCompile(`^Test[A-Z][A-Za-z0-9]*_[A-Z][A-Za-z0-9]*(_[A-Z][A-Za-z0-9]*)?$`)

func TestNames_HaveASubjectAndARule(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads every source, and nothing in it is concurrent")
	}
	for _, path := range sources(t) {
		if !strings.HasSuffix(path, "_test.go") {
			continue
		}
		file := read(t, path)
		for _, test := range file.tests {
			if !subjectRule.MatchString(test.name) {
				t.Errorf("%s:%d: %s: name it TestSubject_Rule", path, file.line(test.offset), test.name)
			}
		}
	}
}

// Every strong phrase is found in each kind of file, and only in its prose.
func TestRead_MasksTextThatIsNotProse(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want int // the line of the one phrase that is found, 0 for none
	}{
		"a.go":       {"package a\n\nvar told = \"x\" // so\n// many\n", 3},
		"b.go":       {"package b\n\nvar told = 1\n", 0},
		"c.go":       {"package c\n\nvar _ = errors.New(\"the node was told\")\n", 3},
		"d.go":       {"package d\n\nvar _ = get(\"told\")\n", 0},
		"e.go":       {"package e\n\n// A `told` is an identifier.\n", 0},
		"f.go":       {"package f\n\n//nolint:all\nvar a int // so\nvar many int\n", 0},
		"a.proto":    {"message Told {\n  // Whoever calls.\n  string told = 1;\n}\n", 2},
		"a.md":       {"# A\n\n```sh\ntold\n```\n\nIt is `told`, by\nand by.\n", 7},
		"a.yaml":     {"told: 1 # whoever\n", 1},
		"b.yaml":     {"told:\n  description: calls\n", 0},
		"c.yaml":     {"description: >\n  It was\n  told so.\n", 3},
		"a.ts":       {"const x = 1 // nobody\n", 1},
		"Dockerfile": {"# Stored.\nRUN told\n# It is kept.\n", 3},
	} {
		t.Run(name, func(t *testing.T) {
			file := mask(name, []byte(test.text))
			found := file.find(strong)
			if test.want == 0 && len(found) > 0 || test.want > 0 && (len(found) != 1 || found[0].number != test.want) {
				t.Errorf("found %+v in %q, want line %d", found, file.text, test.want)
			}
		})
	}
}

// A finding is a phrase in a file.
type finding struct {
	phrase, write, line string
	number              int
}

// find returns the places of phrases in order.
func (p prose) find(words []word) []finding {
	var all []finding
	for _, w := range words {
		for _, at := range w.pattern.FindAllIndex(p.text, -1) {
			number := p.line(at[0])
			all = append(all, finding{
				phrase: strings.Join(strings.Fields(string(p.text[at[0]:at[1]])), " "),
				write:  w.write,
				line:   strings.Split(string(p.text), "\n")[number-1],
				number: number,
			})
		}
	}
	slices.SortStableFunc(all, func(a, b finding) int { return a.number - b.number })
	return all
}

func (p prose) line(offset int) int { return 1 + strings.Count(string(p.text[:offset]), "\n") }

func (e exception) allows(path, line string) bool {
	in := path == e.path || strings.HasSuffix(e.path, "/") && strings.HasPrefix(path, e.path)
	return in && (e.phrase == nil || e.phrase.MatchString(line))
}

// sources returns the repository's files that have prose, below -path.
func sources(t *testing.T) []string {
	t.Helper()
	root := filepath.Join("..", "..")
	var paths []string
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		file, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		file = filepath.ToSlash(file)
		switch {
		case entry.IsDir() && (skipped[file] || entry.Name() == "gen" || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case !entry.Type().IsRegular() || masks(file) == nil:
			return nil
		case *only == "" || file == *only || strings.HasPrefix(file, strings.TrimSuffix(*only, "/")+"/"):
			paths = append(paths, file)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// skipped are folders that are generated, or not part of the repository.
var skipped = map[string]bool{
	".git": true, ".third_party": true, ".bin": true, "bin": true, "cluster": true, "data": true,
	"control/ui/dist": true, "control/ui/test-results": true,
}

func read(t *testing.T, path string) prose {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return mask(path, text)
}
