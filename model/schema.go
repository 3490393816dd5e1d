package model

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// PayloadError reports where a payload violates its command's schema.
type PayloadError struct {
	// Violations lists the violations, at most 32.
	Violations []Violation
}

// Violation is one invalid place in a payload.
type Violation struct {
	// Field leads to the place: "payload.amount".
	Field string
	// Message describes what the schema requires.
	Message string
}

// Error lists the places.
func (e *PayloadError) Error() string {
	parts := make([]string, len(e.Violations))
	for i, v := range e.Violations {
		parts[i] = v.Field + ": " + v.Message
	}
	return "invalid payload: " + strings.Join(parts, "; ")
}

// maxPatternWork bounds the product of a text's bytes and the steps of the regular expression that it is matched
// with, to which the time is proportional: a match cannot be interrupted.
const maxPatternWork = 64 << 20

// pattern is a regular expression of a schema. It panics with a [patternError] for a text that is too long, which
// [validate] recovers, since jsonschema has no way to report it.
type pattern struct {
	*regexp.Regexp

	steps int
}

// patternError reports that a text is too long for a regular expression.
type patternError struct{ bytes, limit int }

// MatchString implements [jsonschema.Regexp].
func (p pattern) MatchString(text string) bool {
	if most := maxPatternWork / max(p.steps, 1); len(text) > most {
		panic(patternError{len(text), most})
	}
	return p.Regexp.MatchString(text)
}

// validate checks a payload; a nil schema accepts only an empty one.
func validate(schema *jsonschema.Schema, payload Object) (err error) {
	if schema == nil {
		if len(payload) > 0 {
			return &PayloadError{Violations: []Violation{{Field: "payload", Message: "the command has no payload"}}}
		}
		return nil
	}
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case patternError:
			err = &PayloadError{
				Violations: []Violation{
					{
						Field: "payload",
						Message: fmt.Sprintf(
							"a text of %d bytes is too long for its regular expression: at most %d are allowed",
							failed.bytes, failed.limit,
						),
					},
				},
			}
		default:
			panic(failed)
		}
	}()
	err = schema.Validate(payload)
	if err == nil {
		return nil
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(err, &invalid) {
		return fmt.Errorf("%w: schema: %w", ErrEvaluation, err)
	}
	out := &PayloadError{}
	collect(invalid, out)
	return out
}

var english = message.NewPrinter(language.English)

// maxViolations bounds the violations that are reported.
const maxViolations = 32

// collect gathers the leaves, up to maxViolations, since only the leaves describe what is wrong.
func collect(err *jsonschema.ValidationError, out *PayloadError) {
	if len(out.Violations) == maxViolations {
		return
	}
	if len(err.Causes) == 0 {
		out.Violations = append(out.Violations, Violation{
			Field:   strings.Join(append([]string{"payload"}, err.InstanceLocation...), "."),
			Message: violation(err.ErrorKind),
		})
		return
	}
	for _, cause := range err.Causes {
		collect(cause, out)
	}
}

// schema compiles a JSON Schema in YAML, and also returns it unchanged. References to other documents are rejected:
// nothing is fetched.
func (p *parser) schema(n *yaml.Node, path string) (*jsonschema.Schema, Object) {
	if p.late(n, path) {
		return nil, nil
	}
	var raw any
	if err := n.Decode(&raw); err != nil {
		p.reject(n, path, "%v", err)
		return nil, nil
	}
	if raw = Normalize(raw); !boundedSchema(raw) {
		p.reject(n, path, "the schema has more than %d subschemas, with its references expanded", maxSchemaSteps)
		return nil, nil
	}
	compiler := jsonschema.NewCompiler()
	compiler.DefaultDraft(jsonschema.Draft2020)
	compiler.UseLoader(noLoader{})
	compiler.AssertFormat()
	engine, checked := p.regexps.engine()
	defer checked()
	compiler.UseRegexpEngine(engine)
	const url = "model:payload"
	if err := compiler.AddResource(url, boundIntegers(raw, p.stored)); err != nil {
		p.reject(n, path, "not a JSON Schema: %v", err)
		return nil, nil
	}
	schema, err := compiler.Compile(url)
	if err != nil {
		p.rejectSchema(n, path, err)
		return nil, nil
	}
	p.warnOfSchema(n, path)
	object, _ := raw.(Object) // true and false are schemas too, and describe no object
	return schema, object
}

type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("%s: a schema may not refer to another document", url)
}
