package model

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// Aggregate is a type of aggregate: its commands, and the rules by which its state follows from its events.
type Aggregate struct {
	// Name is the type's name.
	Name string

	commands map[string]*Command
	evolve   map[string]fields
	history  map[string]schemaHistory
	line     int // in the document
}

// Command is a command of an aggregate.
type Command struct {
	// Name is the command's name.
	Name string
	// Internal is set if only callers with the right command.internal may send the command, such as the platform's
	// workflows.
	Internal bool

	schema  *jsonschema.Schema
	raw     Object // the schema as the document has it
	require []rule
	emit    []emission
}

type rule struct {
	id      string
	that    *expression
	message string
}

type emission struct {
	id    string
	event string
	when  *expression // nil: always
	data  fields
}

// NewEvent is an event that a command emits.
type NewEvent struct {
	Type string
	Data Object
}

// Meta is the metadata that an expression may use.
type Meta struct {
	Tenant        string
	AggregateType string
	AggregateID   string
	// Version is the aggregate's version: before the command, after the event.
	Version int64
	// Time is RFC 3339, in UTC.
	Time string
	// EventID is the event's id; "" while deciding a command.
	EventID string
}

// metaMembers are the members of the envelope in expressions.
var metaMembers = map[string]func(*Meta) any{
	"tenant":         func(m *Meta) any { return m.Tenant },
	"aggregate_type": func(m *Meta) any { return m.AggregateType },
	"aggregate_id":   func(m *Meta) any { return m.AggregateID },
	"version":        func(m *Meta) any { return m.Version },
	"time":           func(m *Meta) any { return m.Time },
	"event_id":       func(m *Meta) any { return m.EventID },
}

func (m *Meta) object() Object {
	object := make(Object, len(metaMembers))
	for name, member := range metaMembers {
		object[name] = member(m)
	}
	return object
}

// RuleError reports that a rule of the model rejects a command.
type RuleError struct {
	// ID is the rule's place in the model: "aggregates.wallet.commands.withdraw.require[0]".
	ID string
	// Rule is the rule's expression.
	Rule string
	// Message is the message from the model.
	Message string
}

// Error returns the message from the model.
func (e *RuleError) Error() string { return e.Message }

// EvaluationError reports that a rule cannot be evaluated for a command in the aggregate's state, for example because
// of a missing member, an overflow, or a type mismatch. It wraps [ErrEvaluation].
type EvaluationError struct {
	// ID is the rule's place in the model, as in [RuleError].
	ID string
	// Err is the reason, with the rule's expression.
	Err error
}

// Error returns the rule's place and the reason.
func (e *EvaluationError) Error() string { return e.ID + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *EvaluationError) Unwrap() error { return e.Err }

// evaluating returns err as an [EvaluationError] of a rule, if it wraps [ErrEvaluation].
func evaluating(id string, err error) error {
	if errors.Is(err, ErrEvaluation) {
		return &EvaluationError{ID: id, Err: err}
	}
	return err
}

// Command returns the command of that name.
func (a *Aggregate) Command(name string) (*Command, bool) {
	c, ok := a.commands[name]
	return c, ok
}

// Commands returns the commands, ordered by name.
func (a *Aggregate) Commands() []*Command {
	return slices.SortedFunc(maps.Values(a.commands),
		func(x, y *Command) int { return strings.Compare(x.Name, y.Name) })
}

// eventTypes returns the types of the aggregate's events, ordered by name.
func (a *Aggregate) eventTypes() []string { return slices.Sorted(maps.Keys(a.evolve)) }

// Schema returns the JSON Schema of the payload, nil for a command without one. It must not be changed.
func (c *Command) Schema() Object { return c.raw }

// Accepts reports whether the payload matches the command's schema.
func (c *Command) Accepts(payload Object) bool { return validate(c.schema, payload) == nil }

// Decide returns the events that the command emits in the given state. Errors: [*PayloadError], [*RuleError],
// [*EvaluationError], an error that wraps [ErrEvaluation], or ctx's.
func (c *Command) Decide(ctx context.Context, state, payload Object, meta Meta) ([]NewEvent, error) {
	if err := validate(c.schema, payload); err != nil {
		return nil, err
	}
	vars := &scope{variables: [2]variable{{stateVariable, state}, {commandVariable, payload}}, meta: &meta}
	for _, r := range c.require {
		ok, err := r.that.boolean(ctx, vars)
		if err != nil {
			return nil, evaluating(r.id, err)
		}
		if !ok {
			return nil, &RuleError{ID: r.id, Rule: r.that.source, Message: r.message}
		}
	}
	var events []NewEvent
	for _, e := range c.emit {
		if e.when != nil {
			ok, err := e.when.boolean(ctx, vars)
			if err != nil {
				return nil, evaluating(e.id, err)
			}
			if !ok {
				continue
			}
		}
		data, err := e.data.object(ctx, vars)
		if err != nil {
			return nil, evaluating(e.id, err)
		}
		events = append(events, NewEvent{Type: e.event, Data: data})
	}
	return events, nil
}

// Evolve returns the state after the event. Members that the rule does not name are unchanged. An event that the
// model does not know changes nothing, since an older model may read a newer journal.
func (a *Aggregate) Evolve(
	ctx context.Context, state Object, eventType string, data Object, meta Meta,
) (Object, error) {
	changes, ok := a.evolve[eventType]
	if !ok {
		return state, nil
	}
	changed, err := changes.object(ctx,
		&scope{variables: [2]variable{{stateVariable, state}, {eventVariable, data}}, meta: &meta})
	if err != nil {
		return nil, evaluating("aggregates."+a.Name+".evolve."+eventType, err)
	}
	next := make(Object, len(state)+len(changed))
	for name, value := range state {
		next[name] = value
	}
	for name, value := range changed {
		next[name] = value
	}
	return next, nil
}

func (p *parser) aggregate(key, n *yaml.Node, path string) *Aggregate {
	a := &Aggregate{
		Name:     key.Value,
		commands: map[string]*Command{},
		evolve:   map[string]fields{},
		history:  map[string]schemaHistory{},
		line:     key.Line,
	}
	var commands, events *yaml.Node
	for key, value := range p.members(n, path, "description", "commands", "evolve", "events") {
		switch key.Value {
		case "commands":
			commands = value
		case "events":
			events = value
		case "evolve":
			for event, changes := range p.members(value, join(path, "evolve")) {
				if path := join(join(path, "evolve"), event.Value); p.name(event, path) {
					a.evolve[event.Value] = p.fields(p.envs.evolve, changes, path)
				}
			}
		}
	}
	if events != nil {
		p.history(a, events, join(path, "events"))
	}
	if commands == nil {
		p.reject(key, path, "the aggregate has no commands")
		return a
	}
	for key, value := range p.members(commands, join(path, "commands")) {
		if path := join(join(path, "commands"), key.Value); p.name(key, path) {
			a.commands[key.Value] = p.command(a, key, value, path)
		}
	}
	return a
}

func (p *parser) command(a *Aggregate, key, n *yaml.Node, path string) *Command {
	c := &Command{Name: key.Value}
	for key, value := range p.members(n, path, "description", "internal", "payload", "require", "emit") {
		path := join(path, key.Value)
		switch key.Value {
		case "internal":
			c.Internal = p.flag(value, path)
		case "payload":
			c.schema, c.raw = p.schema(value, path)
		case "require":
			for path, item := range p.items(value, path) {
				c.require = append(c.require, p.rule(item, path))
			}
		case "emit":
			for path, item := range p.items(value, path) {
				c.emit = append(c.emit, p.emission(a, item, path))
			}
		}
	}
	if len(c.emit) == 0 {
		p.reject(key, path, "the command emits no event")
	}
	return c
}

func (p *parser) rule(n *yaml.Node, path string) rule {
	r := rule{id: path}
	conditions := 0
	for key, value := range p.members(n, path, "that", "else") {
		switch key.Value {
		case "that":
			conditions++
			r.that = p.expression(p.envs.decide, value, join(path, "that"), boolType)
		case "else":
			r.message, _ = p.scalar(value, join(path, "else"))
		}
	}
	if r.message == "" || conditions == 0 {
		p.reject(n, path, "a rule needs `that` (the condition) and `else` (the error message)")
	}
	return r
}

func (p *parser) emission(a *Aggregate, n *yaml.Node, path string) emission {
	e := emission{id: path}
	for key, value := range p.members(n, path, "event", "when", "data") {
		path := join(path, key.Value)
		switch key.Value {
		case "event":
			e.event, _ = p.scalar(value, path)
			if _, ok := a.evolve[e.event]; !ok {
				p.reject(value, path, "aggregate %q has no event %q: add it under evolve", a.Name, e.event)
			}
		case "when":
			e.when = p.expression(p.envs.decide, value, path, boolType)
		case "data":
			e.data = p.fields(p.envs.decide, value, path)
		}
	}
	if e.event == "" {
		p.reject(n, path, "an emission needs `event`")
	}
	return e
}
