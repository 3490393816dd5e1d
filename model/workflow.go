package model

import (
	"context"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Workflow reacts to an event with commands to other aggregates, and undoes
// them when one is refused.
type Workflow struct {
	// Name is the workflow's name.
	Name string
	// On is the event that starts an instance.
	On EventRef
	// Steps are done in order. When one is refused, those before it are undone
	// in reverse order and OnFailure is done.
	Steps []Step
	// OnFailure is done last when a step was refused.
	OnFailure []Step

	when *expression // nil: always
}

// Step is one command of a workflow and how to undo it.
type Step struct {
	// Name is the step's name, unique in the workflow.
	Name string
	// Submit is the command.
	Submit CommandTemplate
	// Undo is the command that undoes Submit; nil: there is nothing to undo.
	Undo *CommandTemplate
}

// CommandTemplate builds a command from the trigger event.
type CommandTemplate struct {
	Aggregate string
	Command   string

	id      *expression
	payload fields
}

// CommandCall is a command to submit.
type CommandCall struct {
	AggregateType string
	AggregateID   string
	Command       string
	Payload       Object
}

// Failure is what a workflow's expressions may know of the step that was
// refused.
type Failure struct {
	// Step is the step's name.
	Step string
	// Message is why.
	Message string
}

// Trigger is the event that a workflow's expressions see.
type Trigger struct {
	Data Object
	Meta Meta
}

func (t Trigger) vars(failure Failure) map[string]any {
	return map[string]any{
		"event": t.Data, "meta": t.Meta.object(),
		"failure": Object{"step": failure.Step, "message": failure.Message},
	}
}

// Applies reports whether the event starts an instance.
func (w *Workflow) Applies(ctx context.Context, trigger Trigger) (bool, error) {
	if w.when == nil {
		return true, nil
	}
	return w.when.boolean(ctx, trigger.vars(Failure{}))
}

// Build returns the command for the trigger event. failure is the zero value
// unless a step was refused.
func (c *CommandTemplate) Build(ctx context.Context, trigger Trigger, failure Failure) (CommandCall, error) {
	vars := trigger.vars(failure)
	id, err := c.id.text(ctx, vars)
	if err != nil {
		return CommandCall{}, fmt.Errorf("%s.%s: id: %w", c.Aggregate, c.Command, err)
	}
	payload, err := c.payload.object(ctx, vars)
	if err != nil {
		return CommandCall{}, fmt.Errorf("%s.%s: payload: %w", c.Aggregate, c.Command, err)
	}
	return CommandCall{AggregateType: c.Aggregate, AggregateID: id, Command: c.Command, Payload: payload}, nil
}

func (p *parser) workflow(m *Model, key, n *yaml.Node, path string) *Workflow {
	w := &Workflow{Name: key.Value}
	names := map[string]bool{}
	for key, value := range p.members(n, path, "description", "on", "when", "steps", "on_failure") {
		path := join(path, key.Value)
		switch key.Value {
		case "on":
			w.On, _ = p.eventRef(m, value, path)
		case "when":
			w.when = p.expression(p.envs.workflow, value, path, boolType)
		case "steps":
			for path, item := range p.items(value, path) {
				w.Steps = append(w.Steps, p.step(m, item, path, names, true))
			}
		case "on_failure":
			for path, item := range p.items(value, path) {
				w.OnFailure = append(w.OnFailure, p.step(m, item, path, names, false))
			}
		}
	}
	if len(w.Steps) == 0 || w.On == (EventRef{}) {
		p.reject(key, path, "a workflow has `on` (the event that starts it) and `steps`")
	}
	return w
}

func (p *parser) step(m *Model, n *yaml.Node, path string, names map[string]bool, undoable bool) Step {
	var s Step
	known := []string{"name", "submit"}
	if undoable {
		known = append(known, "undo")
	}
	for key, value := range p.members(n, path, known...) {
		path := join(path, key.Value)
		switch key.Value {
		case "name":
			if p.name(value, path) {
				s.Name = value.Value
			}
			if names[s.Name] {
				p.reject(value, path, "another step is called %q: a step's name makes its idempotency key", s.Name)
			}
			names[s.Name] = true
		case "submit":
			s.Submit = p.commandTemplate(m, value, path)
		case "undo":
			undo := p.commandTemplate(m, value, path)
			s.Undo = &undo
		}
	}
	if s.Name == "" || s.Submit.Command == "" {
		p.reject(n, path, "a step has `name` and `submit` (the command)")
	}
	return s
}

func (p *parser) commandTemplate(m *Model, n *yaml.Node, path string) CommandTemplate {
	var (
		c       CommandTemplate
		command *yaml.Node
	)
	for key, value := range p.members(n, path, "aggregate", "id", "command", "payload") {
		path := join(path, key.Value)
		switch key.Value {
		case "aggregate":
			c.Aggregate, _ = p.scalar(value, path)
		case "id":
			c.id = p.expression(p.envs.workflow, value, path, stringType)
		case "command":
			c.Command, _ = p.scalar(value, path)
			command = value
		case "payload":
			c.payload = p.fields(p.envs.workflow, value, path)
		}
	}
	switch a, ok := m.aggregates[c.Aggregate]; {
	case command == nil || c.id == nil:
		p.reject(n, path, "a command needs `aggregate`, `id` and `command`")
	case !ok:
		p.reject(n, join(path, "aggregate"), "there is no aggregate %q", c.Aggregate)
	case a.commands[c.Command] == nil:
		p.reject(command, join(path, "command"), "aggregate %q has no command %q", c.Aggregate, c.Command)
	}
	return c
}
