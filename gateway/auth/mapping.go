package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// MappingConfig has the expressions in CEL that map an issuer's claims. The variable claims has the
// claims of a token whose signature has been verified. An empty expression stands for the claim in
// brackets.
type MappingConfig struct {
	// Subject yields the subject of the principal, a string (sub).
	Subject string `yaml:"subject"`
	// Tenants yields the tenants of the principal, a list of strings; "*" for all (tenants).
	Tenants string `yaml:"tenants"`
	// Rights yields the rights of the principal, a list of strings (rights).
	Rights string `yaml:"rights"`
	// Audience yields the audience of the token, a string or a list of strings (aud).
	Audience string `yaml:"audience"`
}

const (
	// maxMappingBytes bounds an expression.
	maxMappingBytes = 8 << 10
	// mappingCost bounds the cost of one evaluation in CEL's units, of which a simple operation costs
	// one.
	mappingCost = 100_000
	// mappingInterrupt is the number of iterations between two checks of the call's context.
	mappingInterrupt = 100
	// maxMapped bounds the texts of a list that an expression yields, and maxMappedBytes their bytes.
	maxMapped, maxMappedBytes = 1024, 64 << 10
)

// Mapping maps claims to principals. It is safe for concurrent use.
type Mapping struct {
	subject, tenants, rights, audience *claimExpression // nil: the claim of the default
}

// MappingError is the error of a mapping. Its text has names of the mapping, and no values of claims.
type MappingError struct {
	// Field is the expression: subject, tenants, rights or audience.
	Field string
	// Reason is why it is refused.
	Reason string
}

// Error implements error.
func (e *MappingError) Error() string { return "claims." + e.Field + ": " + e.Reason }

// NewMapping checks the expressions; nil if there are none. Errors are joined [MappingError]s.
func NewMapping(config MappingConfig) (*Mapping, error) {
	if config == (MappingConfig{}) {
		return nil, nil //nolint:nilnil // the default mapping
	}
	env, err := mappingEnvironment()
	if err != nil {
		return nil, err
	}
	m := &Mapping{}
	var errs []error
	for _, e := range []struct {
		field, source string
		into          **claimExpression
		types         []*cel.Type
	}{
		{"subject", config.Subject, &m.subject, []*cel.Type{cel.StringType}},
		{"tenants", config.Tenants, &m.tenants, listTypes},
		{"rights", config.Rights, &m.rights, listTypes},
		{"audience", config.Audience, &m.audience, append(listTypes, cel.StringType)},
	} {
		if e.source == "" {
			continue
		}
		compiled, reason := compileClaim(env, e.source, e.types)
		if reason != "" {
			errs = append(errs, &MappingError{e.field, reason})
			continue
		}
		compiled.field = e.field
		*e.into = compiled
	}
	return m, errors.Join(errs...)
}

// claimExpression is a checked expression over claims.
type claimExpression struct {
	field, source string
	program       cel.Program
}

// listTypes are the types of expressions that yield lists of strings.
var listTypes = []*cel.Type{cel.ListType(cel.StringType), cel.ListType(cel.DynType)}

// compileClaim checks an expression that must yield one of the types; claims have none, so that
// it is checked when it is evaluated. It returns the reason that it is refused.
func compileClaim(env *cel.Env, source string, want []*cel.Type) (_ *claimExpression, reason string) {
	if len(source) > maxMappingBytes {
		return nil, fmt.Sprintf("the expression has %d bytes; at most %d are allowed", len(source), maxMappingBytes)
	}
	ast, issues := env.Compile(source)
	if issues.Err() != nil {
		first := issues.Errors()[0]
		return nil, fmt.Sprintf("line %d, column %d of the expression: %s", first.Location.Line(),
			first.Location.Column()+1, first.Message)
	}
	yields := ast.OutputType()
	fits := yields.IsExactType(cel.DynType)
	for _, t := range want {
		fits = fits || yields.IsExactType(t)
	}
	if !fits {
		return nil, fmt.Sprintf("the expression yields %s, want %s", yields, want[0])
	}
	if !constantPatterns(ast.NativeRep().Expr()) {
		return nil, "matches() requires a constant regular expression"
	}
	program, err := env.Program(ast,
		cel.CostLimit(mappingCost), cel.CostTracking(claimCosts{}),
		cel.InterruptCheckFrequency(mappingInterrupt), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, "the expression is invalid: " + err.Error()
	}
	return &claimExpression{source: source, program: program}, ""
}

// evaluate returns the value of the expression. Errors are [MappingError]s: they quote no claims.
func (e *claimExpression) evaluate(ctx context.Context, claims map[string]any) (ref.Val, error) {
	out, _, err := e.program.ContextEval(ctx, map[string]any{claimsVariable: claims})
	if err != nil {
		return nil, &MappingError{e.field, e.explain(err)}
	}
	return out, nil
}

// explain returns the reason of a failed evaluation, without values of claims.
func (e *claimExpression) explain(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "no such key"):
		_, name, _ := strings.Cut(text, "no such key: ")
		if name != "" && strings.Contains(e.source, name) { // else it is a claim's value
			return "the token has no claim " + name
		}
		return "the token lacks a claim"
	case strings.Contains(text, "cost limit"):
		return fmt.Sprintf("the evaluation costs more than %d units", mappingCost)
	case strings.Contains(text, "no such overload"):
		return "a claim is of another type than the expression expects"
	case strings.Contains(text, "interrupted"), strings.Contains(text, context.Canceled.Error()):
		return "the evaluation was interrupted: the call has ended"
	}
	return "the evaluation has failed"
}

// text evaluates an expression that yields a string.
func (e *claimExpression) text(ctx context.Context, claims map[string]any) (string, error) {
	out, err := e.evaluate(ctx, claims)
	if err != nil {
		return "", err
	}
	text, ok := out.(types.String)
	if !ok {
		return "", &MappingError{e.field, "it yields " + typeName(out) + ", want a string"}
	}
	return string(text), nil
}

// texts evaluates an expression that yields a list of strings; a string counts as a list of one.
func (e *claimExpression) texts(ctx context.Context, claims map[string]any) ([]string, error) {
	out, err := e.evaluate(ctx, claims)
	if err != nil {
		return nil, err
	}
	if text, ok := out.(types.String); ok && e.field == "audience" {
		return []string{string(text)}, nil
	}
	list, ok := out.(traits.Lister)
	if !ok {
		return nil, &MappingError{e.field, "it yields " + typeName(out) + ", want a list of strings"}
	}
	var texts []string
	size := 0
	for it := list.Iterator(); it.HasNext() == types.True; {
		text, ok := it.Next().(types.String)
		if !ok {
			return nil, &MappingError{e.field, "it yields a list with a member that is not a string"}
		}
		if size += len(text); len(texts) == maxMapped || size > maxMappedBytes {
			return nil, &MappingError{
				e.field, fmt.Sprintf("it yields more than %d strings or %d bytes", maxMapped, maxMappedBytes),
			}
		}
		texts = append(texts, string(text))
	}
	return texts, nil
}

func typeName(v ref.Val) string { return "a value of type " + v.Type().TypeName() }

// mapsAudience reports whether an expression yields the audience of the issuer's tokens.
func (t *trusted) mapsAudience() bool { return t.Mapping != nil && t.Mapping.audience != nil }

// audienceOf returns the audience of a token.
func (m *Mapping) audienceOf(ctx context.Context, token *token) ([]string, error) {
	claims, err := token.values()
	if err != nil {
		return nil, err
	}
	return m.audience.texts(ctx, claims)
}

// mappedEntryBytes estimates the memory of a tenant or right of a principal without its text.
const mappedEntryBytes = 64

// mapped are the parts of a principal that claims are mapped to.
type mapped struct {
	subject         string
	tenants, rights []string
}

// size returns the bytes of the texts and lists.
func (m mapped) size() int {
	size := len(m.subject)
	for _, list := range [][]string{m.tenants, m.rights} {
		for _, text := range list {
			size += len(text) + mappedEntryBytes
		}
	}
	return size
}

// all returns what claims are mapped to; each part has an expression.
func (m *Mapping) all(ctx context.Context, claims map[string]any) (out mapped, err error) {
	if out.subject, err = m.subject.text(ctx, claims); err != nil {
		return out, err
	}
	if out.tenants, err = m.tenants.texts(ctx, claims); err != nil {
		return out, err
	}
	out.rights, err = m.rights.texts(ctx, claims)
	return out, err
}

// mapClaims returns what the claims of a token are mapped to.
func (t *trusted) mapClaims(ctx context.Context, token *token) (out mapped, err error) {
	var subject, tenants, rights *claimExpression
	var claims map[string]any
	if t.Mapping != nil {
		subject, tenants, rights = t.Mapping.subject, t.Mapping.tenants, t.Mapping.rights
		if claims, err = token.values(); err != nil {
			return out, err
		}
	}
	if out.subject = token.claims.subject; subject != nil {
		if out.subject, err = subject.text(ctx, claims); err != nil {
			return out, err
		}
	}
	for _, list := range []struct {
		by    *claimExpression
		claim string
		into  *[]string
	}{{tenants, claimTenants, &out.tenants}, {rights, claimRights, &out.rights}} {
		if list.by != nil {
			*list.into, err = list.by.texts(ctx, claims)
		} else if *list.into, err = token.body.texts(list.claim); err != nil {
			err = fmt.Errorf("malformed claims: %w", err)
		}
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// values returns all claims as plain values: whole numbers are int64, others float64.
func (t *token) values() (map[string]any, error) {
	out := make(map[string]any, len(t.body))
	for name, raw := range t.body {
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber()
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, errors.New("malformed claims")
		}
		var err error
		if out[name], err = plain(value); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func plain(value any) (_ any, err error) {
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole, nil
		}
		double, err := value.Float64()
		if err != nil {
			return nil, errors.New("malformed claims: a number is out of range")
		}
		return double, nil
	case []any:
		for i := range value {
			if value[i], err = plain(value[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range value {
			if value[name], err = plain(value[name]); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}
