package model

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"go.yaml.in/yaml/v3"
)

// Model is a checked document. It is immutable and may be used concurrently.
type Model struct {
	// Name is the name in the document.
	Name string
	// Revision is a content hash of the document.
	Revision string
	// Text is the document.
	Text string
	// Order is the model's place among the platform's models: a greater one was applied, or first used, later; 0:
	// unknown. FromFile is set if the model comes from the program or a file, and was not applied. [Registry] sets
	// both.
	Order    uint64
	FromFile bool

	// Warnings lists probable mistakes, such as a member of a row that is no column; at most 200, by line. They have
	// no effect. [ParseStored] finds none.
	Warnings []Issue

	file string // as passed to Parse
	// reads are the members of events that the rules read without has().
	reads map[EventRef][]eventRead
	// states are the JSON types of the members of each aggregate's state, as far as they are known.
	states map[string]map[string]string

	aggregates map[string]*Aggregate
	views      []*View
	workflows  []*Workflow

	projections map[EventRef][]projection
}

// Parse is [ParseContext] with the background context.
func Parse(file string, source []byte) (*Model, error) {
	return ParseContext(context.Background(), file, source)
}

// ParseContext checks a document as a whole. The error is an [*Error] with the first 200 mistakes and their lines, or
// ctx's error if ctx ends; file is the name in the mistakes.
//
// A document may be hostile. Its bounds are 1 MiB, 100,000 values and 2 MiB of texts with its aliases expanded, 64
// levels of nesting, and 8 KiB per expression; the check ends after 30 s.
func ParseContext(ctx context.Context, file string, source []byte) (*Model, error) {
	return parse(ctx, file, source, false)
}

// ParseStored is [ParseContext] for a document that was in use before. It accepts documents that earlier versions of
// this package accepted and later ones reject, for example because of a constant wait that can never end; the step is
// then refused at run time.
func ParseStored(ctx context.Context, file string, source []byte) (*Model, error) {
	return parse(ctx, file, source, true)
}

func parse(ctx context.Context, file string, source []byte, stored bool) (*Model, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, maxCheckTime, errTooLong)
	defer cancel()
	doc := &document{file: file}
	if len(source) > maxDocumentBytes {
		doc.issues = append(doc.issues, Issue{File: file, Message: "the document is larger than 1 MiB"})
		return nil, doc.err()
	}
	var root yaml.Node
	if err := yaml.Unmarshal(source, &root); err != nil {
		doc.issues = append(doc.issues, Issue{File: file, Line: yamlLine(err), Message: err.Error()})
		return nil, doc.err()
	}
	if len(root.Content) == 0 {
		doc.issues = append(doc.issues, Issue{File: file, Line: 1, Message: "the document is empty"})
		return nil, doc.err()
	}
	if !doc.bounded(&root) {
		return nil, doc.err()
	}
	envs, err := sharedEnvironments()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(source)
	p := &parser{
		document: doc,
		envs:     envs,
		ctx:      ctx,
		stored:   stored,
	}
	m := p.model(root.Content[0])
	if p.ended && !errors.Is(context.Cause(ctx), errTooLong) {
		return nil, ctx.Err()
	}
	m.file, m.Text = file, string(source)
	m.Revision = hex.EncodeToString(sum[:6])
	if err := doc.err(); err != nil {
		return nil, err
	}
	if !p.stored {
		p.warnOfExpressions(m)
		p.warnOfSelfStarts(m)
	}
	slices.SortStableFunc(p.warnings, func(a, b Issue) int { return a.Line - b.Line })
	m.Warnings = p.warnings
	for _, view := range m.views {
		view.fingerprint = m.fingerprintOf(view)
	}
	m.projections = m.newProjections()
	return m, nil
}

// Aggregate returns the aggregate type of that name.
func (m *Model) Aggregate(name string) (*Aggregate, bool) {
	a, ok := m.aggregates[name]
	return a, ok
}

// Aggregates returns the aggregate types, ordered by name.
func (m *Model) Aggregates() []*Aggregate {
	return slices.SortedFunc(maps.Values(m.aggregates),
		func(a, b *Aggregate) int { return strings.Compare(a.Name, b.Name) })
}

// Views returns the views in the document's order.
func (m *Model) Views() []*View { return m.views }

// View returns the view of that name.
func (m *Model) View(name string) (*View, bool) {
	for _, v := range m.views {
		if v.Name == name {
			return v, true
		}
	}
	return nil, false
}

// Workflows returns the workflows in the document's order.
func (m *Model) Workflows() []*Workflow { return m.workflows }

// Workflow returns the workflow of that name.
func (m *Model) Workflow(name string) (*Workflow, bool) {
	for _, w := range m.workflows {
		if w.Name == name {
			return w, true
		}
	}
	return nil, false
}

// parser turns YAML into a model.
type parser struct {
	*document
	envs environments
	ctx  context.Context //nolint:containedctx // the parser lives for one call
	// regexps are the regular expressions of expressions and schemas.
	regexps regexpBudget
	uses    []use
	// places are the uses by each place that contains them, once all are known.
	places map[string][]use
	// warnings are the probable mistakes.
	warnings []Issue
	ended    bool // ctx has ended: nothing more is checked
	stored   bool // see [ParseStored]
}

func (p *parser) model(n *yaml.Node) *Model {
	m := &Model{aggregates: map[string]*Aggregate{}, reads: map[EventRef][]eventRead{}}
	sections := map[string]*yaml.Node{}
	for key, value := range p.members(n, "", "model", "description", "aggregates", "views", "workflows") {
		sections[key.Value] = value
		if key.Value == "model" && p.name(value, "model") {
			m.Name = value.Value
		}
	}
	if m.Name == "" && sections["model"] == nil {
		p.reject(n, "", "the document has no name: write `model: NAME`")
	}
	if section := sections["aggregates"]; section != nil {
		for key, value := range p.members(section, "aggregates") {
			if path := join("aggregates", key.Value); p.name(key, path) {
				m.aggregates[key.Value] = p.aggregate(key, value, path)
			}
		}
	}
	if len(m.aggregates) == 0 {
		p.reject(n, "aggregates", "the document declares no aggregate")
	}
	// Views and workflows refer to aggregates, so they come second.
	if section := sections["views"]; section != nil {
		for key, value := range p.members(section, "views") {
			if path := join("views", key.Value); p.name(key, path) {
				m.views = append(m.views, p.view(m, key.Value, value, path))
			}
		}
	}
	if section := sections["workflows"]; section != nil {
		for key, value := range p.members(section, "workflows") {
			if path := join("workflows", key.Value); p.name(key, path) {
				m.workflows = append(m.workflows, p.workflow(m, key, value, path))
			}
		}
	}
	return m
}

// expression compiles a scalar; want may be nil.
func (p *parser) expression(env *cel.Env, n *yaml.Node, path string, want *cel.Type) *expression {
	source, ok := p.scalar(n, path)
	if !ok || p.late(n, path) {
		return nil
	}
	if strings.HasPrefix(n.Tag, "!") && !strings.HasPrefix(n.Tag, "!!") && !p.stored {
		p.reject(n, path, "%q is a tag in YAML: quote the expression", n.Tag)
		return nil
	}
	expr, err := compile(env, source, want, &p.regexps)
	if err != nil {
		p.reject(n, path, "%v", err)
		return nil
	}
	if !p.stored {
		p.uses = append(p.uses, use{n, path, expr.tree})
	}
	expr.tree = nil
	return expr
}

// fields compiles a mapping of expressions.
func (p *parser) fields(env *cel.Env, n *yaml.Node, path string) fields {
	var list fields
	for key, value := range p.members(n, path) {
		if path := join(path, key.Value); p.name(key, path) {
			if expr := p.expression(env, value, path, nil); expr != nil {
				list = append(list, field{name: key.Value, expr: expr})
			}
		}
	}
	return list
}

// EventRef names an event of an aggregate type: "wallet.opened".
type EventRef struct{ Aggregate, Event string }

// eventRef parses a reference and rejects one to an event that does not exist.
func (p *parser) eventRef(m *Model, n *yaml.Node, path string) (EventRef, bool) {
	aggregate, event, found := strings.Cut(n.Value, ".")
	if !found {
		p.reject(n, path, "%q is not an event: write AGGREGATE.EVENT", n.Value)
		return EventRef{}, false
	}
	a, ok := m.aggregates[aggregate]
	if !ok {
		p.reject(n, path, "the model has no aggregate %q", aggregate)
		return EventRef{}, false
	}
	if _, ok := a.evolve[event]; !ok {
		p.reject(n, path, "aggregate %q has no event %q", aggregate, event)
		return EventRef{}, false
	}
	return EventRef{aggregate, event}, true
}

// yamlLine extracts the line from a syntax error, which yaml only returns as text.
func yamlLine(err error) int {
	_, rest, found := strings.Cut(err.Error(), "line ")
	if !found {
		return 1
	}
	line := 0
	for _, c := range rest {
		if c < '0' || c > '9' {
			break
		}
		line = line*10 + int(c-'0')
	}
	return max(line, 1)
}
