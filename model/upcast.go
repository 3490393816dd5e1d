package model

import (
	"context"
	"fmt"
	"maps"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// schemaHistory is the form of an event's data as it changes over time: upcasts[v-1] makes version
// v+1 out of version v.
type schemaHistory struct{ upcasts []upcast }

// upcast makes the next version of an event's data.
type upcast struct {
	set  fields
	drop []string
}

// version is the one that is written now.
func (h schemaHistory) version() int { return len(h.upcasts) + 1 }

// EventVersion returns the version of an event type's data that is written now;
// 1 unless the model says how it came to be another.
func (a *Aggregate) EventVersion(eventType string) int { return a.history[eventType].version() }

// EventVersion returns the version in which the model's rules know an event.
func (m *Model) EventVersion(ref EventRef) int {
	if a, ok := m.aggregates[ref.Aggregate]; ok {
		return a.EventVersion(ref.Event)
	}
	return 1
}

// Event decodes an event's data and brings it to the version that the model's
// rules know. Decoding is tolerant: what the model does not know stays as it is,
// also data of a later version, which an older node reads. The error wraps
// [ErrEvaluation] when an upcast fails.
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
			return nil, fmt.Errorf("upcast %s.%s from version %d: %w", a.Name, eventType, version, err)
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

// history reads an aggregate's `events` section: how each event's data came to
// be what it is.
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
					p.reject(value, path, "%q is no version: want 1, 2, ...", text)
					version = 1
				}
			case "upcasts":
				for path, item := range p.items(value, path) {
					history.upcasts = append(history.upcasts, p.upcast(len(history.upcasts)+1, item, path))
				}
			}
		}
		if history.version() != version {
			p.reject(value, path, "version %d needs an upcast from each version before it, and there are %d", version, len(history.upcasts))
		}
		a.history[key.Value] = history
	}
}

// upcast reads the step from a version.
func (p *parser) upcast(from int, n *yaml.Node, path string) upcast {
	var step upcast
	for key, value := range p.members(n, path, "from", "set", "drop") {
		switch path := join(path, key.Value); key.Value {
		case "from":
			if text, _ := p.scalar(value, path); text != strconv.Itoa(from) {
				p.reject(value, path, "upcasts stand in order: this one is from %d", from)
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
