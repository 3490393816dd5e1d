package model

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// schemaHistory is the history of an event's data format: upcasts[v-1] converts version v to version v+1.
type schemaHistory struct{ upcasts []upcast }

// upcast converts an event's data to the next version.
type upcast struct {
	set  fields
	drop []string
}

// version returns the version that is written now.
func (h schemaHistory) version() int { return len(h.upcasts) + 1 }

// EventVersion returns the version in which an event type's data is written now; 1 unless the model has upcasts for
// it.
func (a *Aggregate) EventVersion(eventType string) int { return a.history[eventType].version() }

// EventVersion returns the version of an event's data that the model's rules use.
func (m *Model) EventVersion(ref EventRef) int {
	if a, ok := m.aggregates[ref.Aggregate]; ok {
		return a.EventVersion(ref.Event)
	}
	return 1
}

// Event decodes an event's data and converts it to the version that the model's rules use. Decoding is tolerant:
// unknown data is left unchanged, including data of a later version, which an older node reads. The error wraps
// [ErrEvaluation] if an upcast fails.
func (m *Model) Event(ctx context.Context, ref EventRef, version int, raw []byte) (Object, error) {
	if a, ok := m.aggregates[ref.Aggregate]; ok {
		return a.Data(ctx, ref.Event, version, raw)
	}
	return DecodeObject(raw)
}

// Data is [Model.Event] for the aggregate's own events.
func (a *Aggregate) Data(ctx context.Context, eventType string, version int, raw []byte) (Object, error) {
	data, err := DecodeObject(raw)
	if err != nil {
		return nil, err
	}
	return a.upcast(ctx, eventType, version, data)
}

func (a *Aggregate) upcast(ctx context.Context, eventType string, version int, data Object) (Object, error) {
	for history := a.history[eventType]; version < history.version(); version++ {
		step := history.upcasts[max(version, 1)-1]
		changes, err := step.set.object(ctx, &scope{variables: [2]variable{{eventVariable, data}}})
		if err != nil {
			return nil, evaluating(
				fmt.Sprintf("aggregates.%s.events.%s.upcasts[%d]", a.Name, eventType, max(version, 1)-1), err)
		}
		next := maps.Clone(data)
		for _, name := range step.drop {
			delete(next, name)
		}
		maps.Copy(next, changes)
		data = next
	}
	return data, nil
}

// history parses an aggregate's `events` section: the upcasts of each event's data.
func (p *parser) history(a *Aggregate, n *yaml.Node, path string) {
	for key, value := range p.members(n, path) {
		path := join(path, key.Value)
		if _, ok := a.evolve[key.Value]; !ok {
			p.reject(key, path, "aggregate %q has no event %q: add it under evolve", a.Name, key.Value)
			continue
		}
		var history schemaHistory
		version := 1
		for key, value := range p.members(value, path, "version", "upcasts") {
			switch path := join(path, key.Value); key.Value {
			case "version":
				text, _ := p.scalar(value, path)
				var err error
				if version, err = strconv.Atoi(text); err != nil || version < 1 {
					p.reject(value, path, "%q is not a version: expected 1, 2, ...", text)
					version = 1
				}
			case "upcasts":
				for path, item := range p.items(value, path) {
					history.upcasts = append(history.upcasts, p.upcast(len(history.upcasts)+1, item, path))
				}
			}
		}
		if history.version() != version {
			p.reject(value, path, "version %d needs an upcast from each version before it, and there are %d", version,
				len(history.upcasts))
		}
		a.history[key.Value] = history
	}
}

// upcast parses the upcast from a version.
func (p *parser) upcast(from int, n *yaml.Node, path string) upcast {
	var step upcast
	for key, value := range p.members(n, path, "from", "set", "drop") {
		switch path := join(path, key.Value); key.Value {
		case "from":
			if text, _ := p.scalar(value, path); text != strconv.Itoa(from) {
				p.reject(value, path, "upcasts must be in order: expected from: %d", from)
			}
		case "set":
			step.set = p.fields(p.envs.upcast, value, path)
		case "drop":
			for path, item := range p.items(value, path) {
				if name, ok := p.scalar(item, path); ok {
					step.drop = append(step.drop, name)
				}
			}
		}
	}
	return step
}
