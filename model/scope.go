package model

import "cel.dev/cel-go/cel"

// scope holds the variables that an expression may use. It is CEL's activation. The object of the event's envelope is
// only built for an expression that needs more than a member of it.
type scope struct {
	variables [2]variable
	meta      *Meta  // nil if there is none
	envelope  Object // of meta; nil until it is needed
}

type variable struct {
	name  string // "" is none
	value Object
}

// ResolveName implements [cel.Activation].
func (s *scope) ResolveName(name string) (any, bool) {
	for i := range s.variables {
		if v := &s.variables[i]; v.name == name {
			return v.value, true
		}
	}
	if name != metaVariable || s.meta == nil {
		return nil, false
	}
	if s.envelope == nil {
		s.envelope = s.meta.object()
	}
	return s.envelope, true
}

// Parent implements [cel.Activation].
func (s *scope) Parent() cel.Activation { return nil }

// scalar returns the scalar at path, as the evaluator would yield it; ok is false for missing values, objects and
// arrays, which need the evaluator.
func (s *scope) scalar(path []string) (any, bool) {
	if len(path) == 0 {
		return nil, false
	}
	if path[0] == metaVariable && s.meta != nil && len(path) == 2 {
		member, ok := metaMembers[path[1]]
		if !ok {
			return nil, false
		}
		return member(s.meta), true
	}
	value, ok := s.ResolveName(path[0])
	for _, name := range path[1:] {
		object, isObject := value.(Object)
		if !ok || !isObject {
			return nil, false
		}
		value, ok = object[name]
	}
	if !ok {
		return nil, false
	}
	switch value.(type) {
	case string, int64, bool, nil:
		return value, true
	}
	return nil, false
}
