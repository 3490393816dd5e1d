package model

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Workflow reacts to an event with commands to other aggregates, and compensates them when one is refused.
type Workflow struct {
	// Name is the workflow's name.
	Name string
	// On is the event that starts an instance.
	On EventRef
	// Steps are executed in order. When one is refused, the completed ones are compensated in reverse order, and
	// OnFailure is executed.
	Steps []Step
	// OnFailure is executed last if a step was refused.
	OnFailure []Step
	// FromBeginning is set if events that precede the workflow start instances too. Otherwise only later ones do.
	FromBeginning bool
	// Migration determines how instances that started with earlier model revisions continue with this one; nil: they
	// stay pinned to their revision.
	Migration *Migration

	when *expression // nil: always
	line int         // in the document
}

// Identity names the workflow and the event that starts it: with another event it is another workflow, whose earlier
// events were not processed.
func (w *Workflow) Identity() string { return w.Name + "@" + w.On.Aggregate + "." + w.On.Event }

// Step is a step of a workflow, with its compensation: a command, a webhook, a wait, or several of these in parallel.
// Exactly one of Submit, Webhook, Wait and Parallel is set.
type Step struct {
	// Name is the step's name, unique in the workflow.
	Name string
	// Submit is a command.
	Submit *CommandTemplate
	// Webhook is a call of a third-party server.
	Webhook *WebhookTemplate
	// Wait delays the workflow.
	Wait *WaitTemplate
	// Parallel are steps that are executed concurrently.
	Parallel []Step
	// Undo is the command that compensates the step; nil: none.
	Undo *CommandTemplate
	// Retry bounds the retries of a command or a webhook.
	Retry Retry
}

// Leaves yields the steps in order, with the parallel ones expanded in place.
func Leaves(steps []Step) iter.Seq[Step] {
	return func(yield func(Step) bool) {
		for _, s := range steps {
			if s.Parallel == nil {
				if !yield(s) {
					return
				}
				continue
			}
			for inner := range Leaves(s.Parallel) {
				if !yield(inner) {
					return
				}
			}
		}
	}
}

// WebhookTemplate builds a webhook from the trigger event.
type WebhookTemplate struct {
	url  *expression
	body fields
}

// Build returns the webhook's URL and body.
func (t *WebhookTemplate) Build(
	ctx context.Context, trigger Trigger, failure Failure,
) (url string, body Object, err error) {
	vars := trigger.vars(failure)
	if url, err = t.url.text(ctx, vars); err != nil {
		return "", nil, fmt.Errorf("webhook: url: %w", err)
	}
	if body, err = t.body.object(ctx, vars); err != nil {
		return "", nil, fmt.Errorf("webhook: body: %w", err)
	}
	return url, body, nil
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

// Failure is the refused step in a workflow's expressions.
type Failure struct {
	// Step is the step's name.
	Step string
	// Message is the reason.
	Message string
}

// Trigger is the trigger event in a workflow's expressions.
type Trigger struct {
	Data Object
	Meta Meta
}

func (t Trigger) vars(failure Failure) *scope {
	failed := Object{"step": failure.Step, "message": failure.Message}
	return &scope{variables: [2]variable{{eventVariable, t.Data}, {failureVariable, failed}}, meta: &t.Meta}
}

// Applies reports whether the event starts an instance.
func (w *Workflow) Applies(ctx context.Context, trigger Trigger) (bool, error) {
	if w.when == nil {
		return true, nil
	}
	return w.when.boolean(ctx, trigger.vars(Failure{}))
}

// Build returns the command for the trigger event. failure is the zero value unless a step was refused.
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
	return CommandCall{
		AggregateType: c.Aggregate,
		AggregateID:   id,
		Command:       c.Command,
		Payload:       payload,
	}, nil
}

func (p *parser) workflow(m *Model, key, n *yaml.Node, path string) *Workflow {
	w := &Workflow{Name: key.Value, line: key.Line}
	names := map[string]bool{}
	var on, migrate *yaml.Node
	starts, event, _ := strings.Cut(memberOfMapping(n, "on").Value, ".")
	ref := EventRef{starts, event} // `on` may come after the steps
	for key, value := range p.members(n, path, "description", "on", "from", "when", "steps", "on_failure", "migrate") {
		path := join(path, key.Value)
		switch key.Value {
		case "on":
			on = value
			w.On, _ = p.eventRef(m, value, path)
		case "from":
			text, _ := p.scalar(value, path)
			if w.FromBeginning = text == "beginning"; !w.FromBeginning && text != "now" {
				p.reject(value, path, "%q is neither now nor beginning", text)
			}
		case "migrate":
			migrate = value // it names the steps
		case "when":
			w.when = p.expression(p.envs.workflow, value, path, boolType)
		case "steps":
			for path, item := range p.items(value, path) {
				w.Steps = append(w.Steps, p.step(m, item, path, ref, names, true))
			}
		case "on_failure":
			for path, item := range p.items(value, path) {
				w.OnFailure = append(w.OnFailure, p.step(m, item, path, ref, names, false))
			}
		}
	}
	if migrate != nil {
		w.Migration = p.migration(migrate, join(path, "migrate"), names)
	}
	if len(w.Steps) == 0 || on == nil {
		p.reject(key, path, "a workflow needs `on` (the event that starts it) and `steps`")
	}
	return w
}

func (p *parser) step(
	m *Model, n *yaml.Node, path string, on EventRef, names map[string]bool, undoable bool,
) Step {
	var s Step
	known := []string{"name", "submit", "webhook", "retry"}
	if undoable {
		known = append(known, "undo", "wait", "parallel")
	}
	kinds, retries := 0, false
	for key, value := range p.members(n, path, known...) {
		path := join(path, key.Value)
		switch key.Value {
		case "name":
			if p.name(value, path) {
				s.Name = value.Value
			}
			if names[s.Name] {
				p.reject(value, path, "duplicate step name %q: the name is part of the step's idempotency key", s.Name)
			}
			names[s.Name] = true
		case "submit":
			submit := p.commandTemplate(m, value, path, on)
			s.Submit, kinds = &submit, kinds+1
		case "webhook":
			s.Webhook, kinds = p.webhook(value, path), kinds+1
		case "wait":
			s.Wait, kinds = p.wait(value, path), kinds+1
		case "parallel":
			kinds++
			for path, item := range p.items(value, path) {
				inner := p.step(m, item, path, on, names, true)
				if inner.Wait != nil || inner.Parallel != nil {
					p.reject(item, path, "parallel steps must be commands or webhooks")
				}
				s.Parallel = append(s.Parallel, inner)
			}
			if len(s.Parallel) == 0 {
				p.reject(value, path, "expected at least one step")
			}
		case "retry":
			s.Retry, retries = p.retry(value, path), true
		case "undo":
			undo := p.commandTemplate(m, value, path, on)
			s.Undo = &undo
		}
	}
	if s.Name == "" || kinds != 1 {
		p.reject(n, path, "a step needs `name` and exactly one of submit, webhook, wait and parallel")
	}
	if retries && s.Submit == nil && s.Webhook == nil {
		p.reject(n, path, "`retry` is for commands and webhooks")
	}
	if s.Undo != nil && s.Wait != nil {
		p.reject(n, path, "a wait has nothing to undo: remove `undo`")
	}
	if s.Undo != nil && s.Parallel != nil {
		p.reject(n, path, "set `undo` on each of the parallel steps")
	}
	return s
}

func (p *parser) webhook(n *yaml.Node, path string) *WebhookTemplate {
	t := &WebhookTemplate{}
	for key, value := range p.members(n, path, "url", "body") {
		switch path := join(path, key.Value); key.Value {
		case "url":
			t.url = p.expression(p.envs.workflow, value, path, stringType)
			p.warnOfURL(value, path)
		case "body":
			t.body = p.fields(p.envs.workflow, value, path)
		}
	}
	if t.url == nil {
		p.reject(n, path, "a webhook needs `url`")
	}
	return t
}

func (p *parser) commandTemplate(m *Model, n *yaml.Node, path string, on EventRef) CommandTemplate {
	var (
		c       CommandTemplate
		command *yaml.Node
		payload = n
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
			c.payload, payload = p.fields(p.envs.workflow, value, path), value
		}
	}
	switch a, ok := m.aggregates[c.Aggregate]; {
	case command == nil || c.id == nil:
		p.reject(n, path, "a command needs `aggregate`, `id` and `command`")
	case !ok:
		p.reject(n, join(path, "aggregate"), "the model has no aggregate %q", c.Aggregate)
	case a.commands[c.Command] == nil:
		p.reject(command, join(path, "command"), "aggregate %q has no command %q (it has %s)", c.Aggregate, c.Command,
			list(strings.Join(slices.Sorted(maps.Keys(a.commands)), ", ")))
	default:
		p.warnOfPayload(m, payload, join(path, "payload"), on, a.commands[c.Command], c.payload)
	}
	return c
}
