package edge

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

// A path and a body disagree on a field, and one of them has the zero value, which is not on the
// wire.
func TestPath_ZeroValueIsSet(t *testing.T) {
	desc := (&projectionv1.QueryRequest{}).ProtoReflect().Descriptor()
	program := transcode.NewCompiler(nil).Compile(desc)
	rule := &annotations.HttpRule{
		Pattern: &annotations.HttpRule_Post{Post: "/{view=**}/page/{query.page_size}"},
		Body:    "*",
	}
	if _, err := newBinding(&policy.Method{Input: program, Output: program}, rule); err == nil {
		t.Fatal("** is accepted before the end")
	}
	rule.Pattern = &annotations.HttpRule_Post{Post: "/page/{query.page_size}/{view=**}"}
	b, err := newBinding(&policy.Method{Input: program, Output: program}, rule)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ size, view, body, refused string }{
		{"7", "v", `{"query":{"pageSize":7},"view":"v"}`, ""},
		{"7", "v", `{"query":{"pageSize":0},"view":""}`, ""}, // as if it were left out
		{"0", "", `{"query":{"pageSize":0,"filter":"a"},"metadata":{"a":"b"}}`, ""},
		{"0", "v", `{"query":{"pageSize":7}}`, "path: query.page_size: the body sets it to another value"},
		{"7", "v", `{"query":{"pageSize":8}}`, "path: query.page_size: the body sets it to another value"},
		{"0", "", `{"view":"v"}`, "path: view: the body sets it to another value"},
	} {
		req := httptest.NewRequest(http.MethodPost, "/page/"+tc.size+"/"+tc.view, strings.NewReader(tc.body))
		call := &stream{
			request: req,
			body:    req.Body,
			maxBody: 1 << 10,
			binding: b,
			values:  []string{tc.size, tc.view},
			query:   &Query{},
		}
		wire, err := call.message()
		if tc.refused != "" {
			if err == nil || err.Error() != tc.refused {
				t.Errorf("%+v: %v", tc, err)
			}
			continue
		}
		if err != nil || proto.Unmarshal(wire, &projectionv1.QueryRequest{}) != nil {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}
