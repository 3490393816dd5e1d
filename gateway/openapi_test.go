package gateway_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// listed is a parameter of an OpenAPI document.
type listed struct {
	Name, In, Style string
	Schema          map[string]any
	Content         map[string]struct{ Schema map[string]any }
}

// sample returns a valid value of the parameter, as name and value of the query.
func (p listed) sample(t *testing.T) (name, value string) {
	t.Helper()
	schema := p.Schema
	if media, ok := p.Content["application/json"]; ok {
		if media.Schema["type"] != "object" {
			t.Errorf("%s: schema %v", p.Name, media.Schema)
		}
		return p.Name, `{"@type":"type.googleapis.com/google.protobuf.Empty"}`
	}
	name = p.Name
	if strings.HasSuffix(name, "tenant_id") {
		return name, "acme"
	}
	switch {
	case schema["type"] == "array":
		schema = schema["items"].(map[string]any)
	case p.Style == "deepObject":
		schema, name = schema["additionalProperties"].(map[string]any), name+"[1]"
		if strings.HasPrefix(name, "by_flag") {
			name = p.Name + "[true]"
		}
	}
	if schema["$ref"] == "#/components/schemas/shapes.v1.Color" {
		return name, "COLOR_RED"
	}
	switch schema["type"] {
	case "boolean":
		return name, "true"
	case "integer", "number":
		return name, "1"
	}
	switch schema["format"] {
	case "date-time":
		return name, "2026-01-31T12:00:00Z"
	case "int64", "uint64":
		return name, "9007199254740993"
	case "byte":
		return name, "AQID"
	}
	if pattern, _ := schema["pattern"].(string); strings.HasSuffix(pattern, "s$") {
		return name, "1.5s"
	}
	return name, "text"
}

// Each parameter of each path of the test service is sent.
func TestOpenAPI_EveryListedParameterIsAccepted(t *testing.T) {
	if testing.Short() {
		t.Skip("one client calls every method; other tests cover this under the race detector")
	}
	s := newShapes(t, nil)
	answer := s.send(t, http.MethodGet, "/openapi.json", "")
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []listed
			Responses  map[string]struct{ Content map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(answer.text), &document); err != nil {
		t.Fatalf("%v: %.300s", err, answer.text)
	}
	sent := 0
	for path, item := range document.Paths {
		if !strings.HasPrefix(path, "/shapes/v1/") {
			continue
		}
		for verb, operation := range item {
			filled := path
			for _, p := range operation.Parameters {
				if _, value := p.sample(t); p.In == "path" {
					filled = strings.Replace(filled, "{"+p.Name+"}", url.PathEscape(value), 1)
				}
			}
			if strings.ContainsAny(filled, "{}") {
				t.Errorf("%s: undocumented parameters", path)
			}
			if _, stream := operation.Responses["200"].Content["application/x-ndjson"]; stream && verb == "post" {
				continue // a stream of requests
			}
			for _, p := range operation.Parameters {
				target, header := filled, []string(nil)
				switch name, value := p.sample(t); p.In {
				case "query":
					target += "?" + url.Values{name: {value}}.Encode()
				case "header":
					header = []string{name, value}
				}
				if answer := s.send(t, strings.ToUpper(verb), target, "", header...); answer.status != http.StatusOK {
					t.Errorf("%s %s: %d %s", verb, target, answer.status, answer.text)
				}
				sent++
			}
			s.refuses(t, verb+" "+filled, s.send(t, strings.ToUpper(verb), filled+"?not_listed=1", ""),
				http.StatusBadRequest, "invalid_argument", "not_listed")
		}
	}
	if sent < 100 {
		t.Errorf("%d parameters documented", sent)
	}
	for _, path := range []string{
		"/shapes/v1/shelves/{shelves}/books/{books}", "/shapes/v1/files/{name}:peek", "/shapes/v1/wild/{wild}/end",
		"/shapes/v1/inner/{inner.text}/{inner.number}",
	} {
		if document.Paths[path] == nil {
			t.Errorf("%s is not documented", path)
		}
	}
	if patch := document.Paths["/shapes/v1/items/{name}"]["patch"]; len(patch.Parameters) == 0 ||
		patch.Parameters[0].Name != "name" {
		t.Errorf("one path under several names: %v", patch.Parameters)
	}
	for path, media := range map[string]string{
		"/shapes/v1/items:watch": "text/event-stream", "/shapes/v1/downloads/{name}": "*/*",
		"/shapes/v1/parts/{name}": "*/*",
	} {
		if document.Paths[path]["get"].Responses["200"].Content[media] == nil {
			t.Errorf("%s documents no response %s", path, media)
		}
	}
}

// Each parameter of each built-in path is sent to a gateway without nodes for them, so that calls
// have no effect: no parameter is rejected as unknown.
func TestOpenAPI_EveryListedParameterOfBuiltInServicesIsRead(t *testing.T) {
	if testing.Short() {
		t.Skip("one client calls every method; other tests cover this under the race detector")
	}
	s := newShapes(t, nil)
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []listed
			Right      string `json:"x-headgate-right"`
		}
	}
	answer := s.send(t, http.MethodGet, "/openapi.json", "")
	if err := json.Unmarshal([]byte(answer.text), &document); err != nil {
		t.Fatalf("%v: %.300s", err, answer.text)
	}
	sent := 0
	for path, item := range document.Paths {
		if strings.HasPrefix(path, "/shapes") || !strings.HasPrefix(path, "/v1/") {
			continue
		}
		for verb, operation := range item {
			verb, token := strings.ToUpper(verb), s.token(t, "*", "headgate.none")
			if operation.Right != "" {
				token = s.token(t, "*", operation.Right)
			}
			filled := path
			for _, p := range operation.Parameters {
				if p.In == "path" {
					filled = strings.Replace(filled, "{"+p.Name+"}", "acme", 1)
				}
			}
			for _, p := range operation.Parameters {
				if p.In != "query" {
					continue
				}
				name, value := p.sample(t)
				answer := s.send(t, verb, filled+"?"+url.Values{name: {value}}.Encode(), "", "Authorization", token,
					"x-tenant-id", "acme")
				if answer.status == http.StatusNotFound || answer.status == http.StatusMethodNotAllowed ||
					strings.Contains(answer.text, "not a field") {
					t.Errorf("%s %s with %s: %d %s", verb, path, name, answer.status, answer.text)
				}
				sent++
			}
			s.refuses(
				t, verb+" "+filled,
				s.send(t, verb, filled+"?not_listed=1", "", "Authorization", token, "x-tenant-id", "acme"),
				http.StatusBadRequest, "invalid_argument", "not_listed",
			)
		}
	}
	if sent < 15 {
		t.Errorf("%d parameters documented", sent)
	}
}
