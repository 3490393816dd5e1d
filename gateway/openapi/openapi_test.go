package openapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/headgate/headgate/gateway/openapi"
	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	_ "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	_ "github.com/headgate/headgate/gen/projection/gateway/v1"
	_ "github.com/headgate/headgate/gen/runner/admin/v1"
)

func document(t *testing.T) map[string]any {
	t.Helper()
	catalog, err := policy.NewCatalog()
	if err != nil {
		t.Fatal(err)
	}
	table, err := policy.Build(catalog, transcode.NewCompiler(catalog))
	if err != nil {
		t.Fatal(err)
	}
	text, err := openapi.Document("Headgate", "test", table)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// at follows members, separated by spaces because paths have slashes.
func at(t *testing.T, doc any, path string) any {
	t.Helper()
	for name := range strings.FieldsSeq(path) {
		object, ok := doc.(map[string]any)
		if !ok || object[name] == nil {
			t.Fatalf("there is no %s in %s", name, path)
		}
		doc = object[name]
	}
	return doc
}

func TestDocument_DescribesServedMethods(t *testing.T) {
	doc := document(t)
	if at(t, doc, "openapi") != "3.1.0" {
		t.Errorf("openapi = %v", doc["openapi"])
	}
	get := at(t, doc, "paths /v1/query/{view}/{key} get")
	if at(t, get, "x-headgate-right") != "query.read" {
		t.Errorf("right = %v", at(t, get, "x-headgate-right"))
	}
	names := ""
	for _, p := range at(t, get, "parameters").([]any) {
		names += at(t, p, "name").(string) + " in " + at(t, p, "in").(string) + ", "
	}
	if names != "view in path, key in path, tenant_id in query, min_position in query, fields in query, "+
		"If-None-Match in header, " {
		t.Errorf("parameters: %s", names)
	}
	nested := ""
	for _, p := range at(t, doc, "paths /v1/query/{view} get parameters").([]any) {
		nested += at(t, p, "name").(string) + " "
	}
	if nested != "view tenant_id query.filter query.order_by query.page_size query.page_token query.fields metadata "+
		"min_position If-None-Match " {
		t.Errorf("nested parameters: %s", nested)
	}
	at(t, doc,
		"paths /aggregate.gateway.v1.CommandService/Submit post requestBody content application/json schema $ref")
	for path := range doc["paths"].(map[string]any) {
		if strings.Contains(path, "grpc.") {
			t.Errorf("%s is described and not served", path)
		}
	}
	ids := map[string]string{}
	for path, item := range doc["paths"].(map[string]any) {
		for verb, operation := range item.(map[string]any) {
			id := at(t, operation, "operationId").(string)
			if other, taken := ids[id]; taken {
				t.Errorf("%s %s and %s are both called %s", verb, path, other, id)
			}
			ids[id] = verb + " " + path
		}
	}
}

// The platform's protos have comments, which their generated code lacks.
func TestDocument_HasProtoComments(t *testing.T) {
	doc := document(t)
	query := at(t, doc, "paths /v1/query/{view} get")
	if at(t, query, "summary") != "Query returns a page of a view's rows." ||
		!strings.Contains(at(t, query, "description").(string), "NOT_FOUND (unknown view)") {
		t.Errorf("%v", query)
	}
	if text := at(
		t, doc, "components schemas projection.gateway.v1.QueryRequest properties view description",
	); text != "The view's name, as the model names it." {
		t.Errorf("%v", text)
	}
	for path, item := range doc["paths"].(map[string]any) {
		for verb, operation := range item.(map[string]any) {
			if id := at(t, operation, "operationId").(string); !strings.Contains(
				at(t, operation, "summary").(string), " ",
			) {
				t.Errorf("%s %s (%s) has no summary", verb, path, id)
			}
		}
	}
}

// No schema is a union of types, which client generators reject.
func TestDocument_HasOneTypePerSchema(t *testing.T) {
	var walk func(where string, value any)
	walk = func(where string, value any) {
		switch v := value.(type) {
		case map[string]any:
			if _, union := v["type"].([]any); union {
				t.Errorf("%s: %v", where, v["type"])
			}
			for name, inner := range v {
				walk(where+" "+name, inner)
			}
		case []any:
			for _, inner := range v {
				walk(where, inner)
			}
		}
	}
	walk("", document(t))
}

func TestSchemas_AreValidAndHaveRules(t *testing.T) {
	doc := document(t)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("mem:doc", doc); err != nil {
		t.Fatal(err)
	}
	for name := range at(t, doc, "components schemas").(map[string]any) {
		if _, err := compiler.Compile("mem:doc#/components/schemas/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	request, err := compiler.Compile("mem:doc#/components/schemas/aggregate.gateway.v1.SubmitRequest")
	if err != nil {
		t.Fatal(err)
	}
	for text, valid := range map[string]bool{
		`{"aggregateType":"wallet","aggregateId":"w","command":"open","payload":{"owner":"ada"},"expectedVersion":"3"}`: true,
		`{"aggregateType":"Wallet"}`: false, `{"amount":1}`: false, `{"payload":[]}`: false,
	} {
		instance, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := request.Validate(instance); (err == nil) != valid {
			t.Errorf("%s: %v, want valid %v", text, err, valid)
		}
	}
}
