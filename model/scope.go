package model

import "cel.dev/cel-go/cel"

// scope holds the variables that an expression may name. It is CEL's activation. The
// event's envelope, of which most expressions want a member or nothing, is made into an
// object by the first that wants more.
type scope struct {
	variables [2]variable
	meta      *Meta  // nil where there is none
	envelope  Object // meta's; nil until it is asked for
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

// scalar returns what stands at the path, as the evaluator would yield it; false for
// whatever the evaluator has more to say of: what is missing, objects, arrays.
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
