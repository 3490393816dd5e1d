package node

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/gateway"
)

// originSettings are an origin, or an origin with headers.
type originSettings struct {
	Origin  string
	Headers []string
	Exposed []string
}

// UnmarshalYAML implements [yaml.Unmarshaler].
func (o *originSettings) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.MappingNode {
		return node.Decode(&o.Origin)
	}
	fields := map[string]any{"origin": &o.Origin, "headers": &o.Headers, "exposed": &o.Exposed}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key := node.Content[i]
		field, known := fields[key.Value]
		if !known {
			return &yaml.TypeError{
				Errors: []string{
					fmt.Sprintf("line %d: field %s not found in type node.originSettings", key.Line, key.Value),
				},
			}
		}
		if err := node.Content[i+1].Decode(field); err != nil {
			return err
		}
	}
	return nil
}

// origins returns the origins whose pages may call.
func (g *gatewaySettings) origins() []gateway.Origin {
	out := make([]gateway.Origin, len(g.Origins))
	for i, origin := range g.Origins {
		out[i] = gateway.Origin(origin)
	}
	return out
}
