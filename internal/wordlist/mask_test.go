package wordlist

import (
	"go/ast"
	"go/parser"
	"go/scanner"
	"go/token"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// span is a part of a file that is prose.
type span struct{ from, to int }

// masks returns the function that finds the prose of a kind of file, nil for files that have none.
func masks(file string) func(string) []span {
	switch name := path.Base(file); {
	case name == "package-lock.json", name == "package.json", name == "tsconfig.json":
		return nil
	case name == "Dockerfile", name == "run" && strings.HasPrefix(file, ".ci/"):
		return script
	}
	switch path.Ext(file) {
	case ".go":
		return goProse
	case ".proto":
		return proto
	case ".md":
		return markdown
	case ".yaml", ".yml":
		return yaml
	case ".sh", ".conf", ".service":
		return script
	case ".json":
		return sentences
	case ".ts", ".tsx", ".css", ".html", ".mjs":
		return everything
	}
	return nil
}

// mask returns a file's prose. Code in backquotes is not prose.
func mask(file string, text []byte) prose {
	p := prose{path: file, text: make([]byte, len(text))}
	for i, b := range text {
		if b == ' ' || b == '\t' || b == '\n' || b == '\r' {
			p.text[i] = b
		}
	}
	for _, s := range masks(file)(string(text)) {
		copy(p.text[s.from:s.to], text[s.from:s.to])
	}
	for _, quoted := range quotes.FindAllIndex(p.text, -1) {
		clear(p.text[quoted[0]:quoted[1]])
	}
	for _, marker := range markers.FindAllIndex(p.text, -1) {
		for i := marker[0]; i < marker[1]; i++ {
			if p.text[i] != '\n' {
				p.text[i] = ' '
			}
		}
	}
	if strings.HasSuffix(file, "_test.go") {
		p.tests = tests(string(text))
	}
	return p
}

var (
	quotes  = regexp.MustCompile("`[^`\n]*`")
	markers = regexp.MustCompile(`(?m)^[ \t\x00]*(?://+|#+|\*|>)|//|/\*|\*/`)

	// sentence is a quoted text of three words or more.
	sentence    = regexp.MustCompile(`"(?:[^"\\\n]|\\.)* (?:[^"\\\n]|\\.)* (?:[^"\\\n]|\\.)*"`)
	literal     = regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"`)
	comment     = regexp.MustCompile(`//[^\n]*|(?s:/\*.*?\*/)`)
	hash        = regexp.MustCompile(`(?m)(?:^|\s)#[^\n]*`)
	yamlKey     = regexp.MustCompile(`(?m)^[ \t]*(?:- )?["'A-Za-z0-9_./${}-]+:(?: |$)`)
	fence       = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	linkTargets = regexp.MustCompile(`\]\([^)\n]*\)`)
)

func everything(text string) []span { return []span{{0, len(text)}} }

func sentences(text string) []span { return spans(sentence, text) }

func spans(pattern *regexp.Regexp, text string) []span {
	var all []span
	for _, at := range pattern.FindAllStringIndex(text, -1) {
		all = append(all, span{at[0], at[1]})
	}
	return all
}

// outside returns what patterns do not match.
func outside(text string, patterns ...*regexp.Regexp) []span {
	masked := []byte(text)
	for _, pattern := range patterns {
		for _, at := range pattern.FindAllIndex(masked, -1) {
			clear(masked[at[0]:at[1]])
		}
	}
	var all []span
	for i := 0; i < len(masked); i++ {
		if masked[i] == 0 {
			continue
		}
		from := i
		for i < len(masked) && masked[i] != 0 {
			i++
		}
		all = append(all, span{from, i})
	}
	return all
}

func markdown(text string) []span { return outside(text, fence, linkTargets) }

func yaml(text string) []span { return outside(text, yamlKey) }

func script(text string) []span { return append(spans(hash, text), spans(sentence, text)...) }

func proto(text string) []span {
	masked := literal.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("\x00", len(s)) })
	return spans(comment, masked)
}

// goProse returns the comments of a Go file except directives, and its quoted strings of three
// words or more, which are messages.
func goProse(text string) []span {
	var all []span
	files := token.NewFileSet()
	file := files.AddFile("", files.Base(), len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), func(token.Position, string) {}, scanner.ScanComments)
	for {
		pos, kind, lit := s.Scan()
		from := file.Offset(pos)
		switch kind {
		case token.EOF:
			return all
		case token.COMMENT:
			if !directive.MatchString(lit) {
				all = append(all, span{from, from + len(lit)})
			}
		case token.STRING:
			if value, err := strconv.Unquote(lit); err == nil && lit[0] == '"' && len(strings.Fields(value)) >= 3 {
				all = append(all, span{from, from + len(lit)})
			}
		}
	}
}

// directive is a comment for a tool.
var directive = regexp.MustCompile(`^//[a-z]+:[a-z]`)

// tests returns the test functions of a Go file.
func tests(text string) []declared {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, "", text, parser.SkipObjectResolution)
	if err != nil {
		return []declared{{name: "does not parse: " + err.Error()}}
	}
	var all []declared
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !strings.HasPrefix(f.Name.Name, "Test") || f.Name.Name == "TestMain" ||
			len(f.Type.Params.List) != 1 {
			continue
		}
		all = append(all, declared{f.Name.Name, set.Position(f.Pos()).Offset})
	}
	return all
}
