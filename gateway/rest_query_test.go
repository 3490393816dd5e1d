package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/gateway"
	rest "github.com/headgate/headgate/gateway/edge"
)

// Parameters of every kind of field are sent.
func TestREST_QuerySetsFieldsOfEveryType(t *testing.T) {
	s := newShapes(t, nil)
	for query, want := range map[string]string{
		"a_double=1.5&a_float=-2&an_int32=-3&an_int64=-9007199254740993&a_uint32=4294967295&a_uint64=18446744073709551615": `{"aDouble":1.5,"aFloat":-2,"anInt32":-3,"anInt64":"-9007199254740993","aUint32":4294967295,"aUint64":"18446744073709551615"}`,
		"aDouble=NaN&aFloat=-Infinity":                    `{"aDouble":"NaN","aFloat":"-Infinity"}`,
		"a_sint32=-1&a_sint64=-2&a_fixed32=3&a_fixed64=4": `{"aSint32":-1,"aSint64":"-2","aFixed32":3,"aFixed64":"4"}`,
		"a_sfixed32=-1&aSfixed64=-2&a_bool=true":          `{"aSfixed32":-1,"aSfixed64":"-2","aBool":true}`,
		"a_string=a+b%20c%26d&a_bytes=AQID":               `{"aString":"a b c&d","aBytes":"AQID"}`,
		"color=COLOR_RED":                                 `{"color":"COLOR_RED"}`,
		"color=2":                                         `{"color":"COLOR_BLUE"}`,
		"maybe=":                                          `{"maybe":""}`,
		"a_string=":                                       `{}`,
		"bool_value=true":                                 `{"boolValue":true}`,
		"boolValue=false":                                 `{"boolValue":false}`,
		"double_value=1.5&float_value=2&int64_value=-9&uint64_value=9&int32_value=-3&uint32_value=3": `{"doubleValue":1.5,"floatValue":2,"int64Value":"-9","uint64Value":"9","int32Value":-3,"uint32Value":3}`,
		"string_value=true&bytes_value=AQID":        `{"stringValue":"true","bytesValue":"AQID"}`,
		"string_value=":                             `{"stringValue":""}`,
		"time=2026-01-31T12:00:00.5Z&duration=1.5s": `{"time":"2026-01-31T12:00:00.5Z","duration":"1.5s"}`,
		"mask=name,inner.text":                      `{"mask":"name,inner.text"}`,
		"object=%7B%22a%22:%5B1%5D%7D":              `{"object":{"a":[1]}}`,
		"value=1.5":                                 `{"value":1.5}`,
		"value=%22a%22":                             `{"value":"a"}`,
		"value=null":                                `{"value":null}`,
		"list=%5B1,%22a%22%5D&empty=%7B%7D":         `{"list":[1,"a"],"empty":{}}`,
		"any=%7B%22@type%22:%22type.googleapis.com/google.protobuf.Duration%22,%22value%22:%221s%22%7D": `{"any":{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}}`,
		"null=null":       `{"null":null}`,
		"null=NULL_VALUE": `{"null":null}`,
		"nothing=null":    `{"nothing":null}`,
		"inner.text=a&inner.inner.number=2&inner.time=2026-01-31T12:00:00Z":                      `{"inner":{"text":"a","inner":{"number":2},"time":"2026-01-31T12:00:00Z"}}`,
		"tags=a&tags=b&tags=&numbers=1&numbers=-2":                                               `{"tags":["a","b",""],"numbers":[1,-2]}`,
		"colors=COLOR_RED&colors=2":                                                              `{"colors":["COLOR_RED","COLOR_BLUE"]}`,
		"times=2026-01-31T12:00:00Z&flags=true&flags=false&values=1&values=%22a%22":              `{"times":["2026-01-31T12:00:00Z"],"flags":[true,false],"values":[1,"a"]}`,
		"labels[a]=1&labels[b.c]=2&labels%5Bd%5D=3&labels[]=4&labels[e]f]=5":                     `{"labels":{"a":"1","b.c":"2","d":"3","":"4","e]f":"5"}}`,
		"by_number[1]=a&by_number[-2]=b&byFlag[true]=1.5":                                        `{"byNumber":{"1":"a","-2":"b"},"byFlag":{"true":1.5}}`,
		"inner_by_name[a].text=x&inner_by_name[a].labels[b]=y&inner_by_name[c].number=1":         `{"innerByName":{"a":{"text":"x","labels":{"b":"y"}},"c":{"number":1}}}`,
		"time_by_name[a]=2026-01-31T12:00:00Z&color_by_name[a]=COLOR_RED&flag_by_number[1]=true": `{"timeByName":{"a":"2026-01-31T12:00:00Z"},"colorByName":{"a":"COLOR_RED"},"flagByNumber":{"1":true}}`,
		"number=5":      `{"number":"5"}`,
		"part.left=a":   `{"part":{"left":"a"}}`,
		"&a_bool=true&": `{"aBool":true}`,
		"":              `{}`,
	} {
		s.gets(t, query, s.send(t, http.MethodGet, "/shapes/v1/items?"+query, ""), want)
	}
}

// Values that a JSON body may not have are rejected in a query too.
func TestREST_QueryIsAsStrictAsJSON(t *testing.T) {
	s := newShapes(t, nil)
	for query, message := range map[string]string{
		"items?a_bool=true&a_bool=true":          `query parameter: a_bool: it is given more than once`,
		"items?a_bool=true&aBool=false":          `query parameter: aBool: it is given more than once: a_bool sets it too`,
		"items?inner.text=a&inner.text=b":        `query parameter: inner.text: it is given more than once`,
		"items?labels[a]=1&labels[a]=2":          `query parameter: labels[a]: it is given more than once`,
		"items?by_number[1]=1&by_number[01]=2":   `query parameter: byNumber[01]: it is given more than once`,
		"items?bool_value=true&bool_value=false": `query parameter: bool_value: it is given more than once`,
		"items?text=a&number=1":                  `query parameter: number: it cannot be set together with another field of its oneof: text`,
		"items?number=1&part.text=a":             `query parameter: part.text: it cannot be set together with another field of its oneof: number`,
		"items?inner.left=a&inner.right=b":       `query parameter: inner.right: it cannot be set together with another field of its oneof: left`,
		"items/a?name=b":                         `query parameter: name: it is given more than once: the path sets it too`,
		"items/a?name=a":                         `query parameter: name: it is given more than once: the path sets it too`,
		"inner/a/1?inner.number=1":               `query parameter: inner.number: it is given more than once: the path sets it too`,
		"items?inner=%7B%7D":                     `query parameter: inner: it is a message: send its fields, such as inner.text`,
		"items?inners=%7B%7D":                    `query parameter: inners: it is a list of messages`,
		"items?inners.text=a":                    `query parameter: inners.text: it leads through a list`,
		"items?labels=a":                         `query parameter: labels: it is a map: name an entry of it, such as labels[key]`,
		"items?labels.a=b":                       `such as labels[key]`,
		"items?=x":                               `query parameter: \"\": it is not a field of shapes.v1.Everything`,
		"items?labels[a=1":                       `has a [ that is not closed`,
		"items?tags[0]=a":                        `query parameter: tags[0]: it is not a field: shapes.v1.Everything.tags is not a map`,
		"items?time.seconds=1":                   `query parameter: time.seconds: it leads into a google.protobuf.Timestamp, which is one value`,
		"items?bool_value.value=true":            `leads into a google.protobuf.BoolValue, which is one value`,
		"items?a_bool=yes":                       `query parameter: a_bool: \"yes\" is not true or false`,
		"items?a_bool":                           `query parameter: a_bool: \"\" is not true or false`,
		"items?bool_value=1":                     `query parameter: bool_value: \"1\" is not true or false`,
		"items?an_int32=2147483648":              `query parameter: an_int32: \"2147483648\" is not a 32-bit integer`,
		"items?a_uint64=-1":                      `query parameter: a_uint64: \"-1\" is not an unsigned 64-bit integer`,
		"items?numbers=1&numbers=x":              `query parameter: numbers: \"x\" is not a 32-bit integer`,
		"items?color=red":                        `query parameter: color: \"red\" is not one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_BLUE`,
		"items?a_double=one":                     `query parameter: a_double: \"one\" is not a number`,
		"items?a_bytes=*":                        `query parameter: a_bytes: \"*\" is not a string in base64`,
		"items?time=today":                       `query parameter: time: \"today\" is not a timestamp such as`,
		"items?duration=1":                       `query parameter: duration: \"1\" is not a duration such as`,
		"items?mask=_":                           `query parameter: mask: \"_\" is not a field mask such as`,
		"items?object=a":                         `query parameter: object: \"a\" is not JSON`,
		"items?object=1":                         `query parameter: object: 1 is not an object`,
		"items?value=a":                          `query parameter: value: \"a\" is not JSON`,
		"items?by_number[x]=a":                   `\"x\" is not a valid key`,
		"items?colour=red":                       `query parameter: colour: it is not a field of shapes.v1.Everything`,
		"items?inner.colour=red":                 `query parameter: inner.colour: it is not a field of shapes.v1.Inner`,
		"items?utm_source=a":                     `query parameter: utm_source: it is not a field`,
		"items?a_bool=true;a_string=x":           `it has a semicolon`,
		"items?a_bool=%zz":                       `the query string is malformed`,
	} {
		s.refuses(t, query, s.send(t, http.MethodGet, "/shapes/v1/"+query, ""), http.StatusBadRequest,
			"invalid_argument", message)
	}
	long := "labels[a" + strings.Repeat("%C3%A9", 500) + "]" // an excerpt of it ends between two letters
	answer := s.send(t, http.MethodGet, "/shapes/v1/items?"+long+"=1&"+long+"=2", "")
	s.refuses(t, "long name", answer, http.StatusBadRequest, "invalid_argument", "it is given more than once")
	if !strings.Contains(answer.text, "google.rpc.BadRequest") || strings.Contains(answer.text, "\ufffd") ||
		strings.Contains(answer.text, `\ufffd`) {
		t.Errorf("long name: %s", answer.text)
	}
	deep := strings.Repeat("inner.", 5000) + "text=x"
	s.refuses(t, "deep name", s.send(t, http.MethodGet, "/shapes/v1/items?"+deep, ""), http.StatusBadRequest,
		"invalid_argument", "leads through more than 100 messages")
	// A field of a body and of the path has the same message.
	s.refuses(
		t, "body", s.send(t, http.MethodPost, "/shapes/v1/items", `{"inner":{"number":"many"}}`),
		http.StatusBadRequest, "invalid_argument",
		`inner.number: \"many\" is not a 32-bit integer`,
	)
	s.refuses(
		t, "path", s.send(t, http.MethodGet, "/shapes/v1/typed/yes/1/COLOR_RED/2026-01-31T12:00:00Z", ""),
		http.StatusBadRequest, "invalid_argument",
		`path: a_bool: \"yes\" is not true or false`,
	)
	s.refuses(
		t, "path", s.send(t, http.MethodGet, "/shapes/v1/typed/true/1/red/2026-01-31T12:00:00Z?a_string=x", ""),
		http.StatusBadRequest, "invalid_argument",
		`path: color: \"red\" is not one of COLOR_UNSPECIFIED`,
	)
}

// Body, path and query are combined in every way.
func TestREST_BodyPathAndQuerySetFieldOnce(t *testing.T) {
	s := newShapes(t, nil)
	for _, tc := range []struct{ method, path, body, want string }{
		{http.MethodPost, "items/a", `{"aString":"x"}`, `{"name":"a","aString":"x"}`},
		{http.MethodPost, "items/a", `{"name":"a","aString":"x"}`, `{"name":"a","aString":"x"}`},
		{http.MethodPost, "items/a", `{"name":""}`, `{"name":"a"}`},
		{http.MethodPost, "items/a", ``, `{"name":"a"}`},
		{http.MethodPut, "items/a?a_string=x", `{"text":"p"}`, `{"name":"a","aString":"x","part":{"text":"p"}}`},
		{http.MethodPut, "items/a?number=1", ``, `{"name":"a","number":"1"}`},
		{http.MethodPost, "items/a:touch?a_string=x", ``, `{"name":"a","aString":"x"}`},
		{http.MethodPost, "items/a/tags", `["x","y"]`, `{"name":"a","tags":["x","y"]}`},
		{http.MethodPost, "items/a/value", `null`, `{"name":"a","value":null}`},
		{http.MethodPost, "items/a/value?tags=x", `{"a":1}`, `{"name":"a","value":{"a":1},"tags":["x"]}`},
		{"SEARCH", "items?a_bool=true", `{"text":"x"}`, `{"inner":{"text":"x"},"aBool":true}`},
		{http.MethodDelete, "items/a?a_bool=true", ``, `{"name":"a","aBool":true}`},
	} {
		s.gets(t, tc.path+" "+tc.body, s.send(t, tc.method, "/shapes/v1/"+tc.path, tc.body), tc.want)
	}
	for _, tc := range []struct{ method, path, body, message string }{
		{http.MethodPost, "items/a", `{"name":"b"}`, `path: name: the body sets it to another value`},
		{http.MethodPost, "items?a_bool=true", `{}`, `the path takes no query parameters`},
		{
			http.MethodPut, "items/a?part.text=x", `{"text":"p"}`,
			`query parameter: part.text: it is given more than once: the body sets it too`,
		},
		{http.MethodPut, "items/a?part.number=1", `{"text":"p"}`, `the body sets it too`},
		{
			http.MethodPut, "items/a?number=1", `{"text":"p"}`,
			`query parameter: number: it cannot be set together with another field of its oneof: part`,
		},
		{
			http.MethodPost, "items/a/tags?tags=x", `["y"]`,
			`query parameter: tags: it is given more than once: the body sets it too`,
		},
		{http.MethodPost, "items/a:touch", `{}`, `the path takes no body`},
		{http.MethodGet, "items/a", `{"aBool":true}`, `the path takes no body`},
		{http.MethodDelete, "items/a", `{"aBool":true}`, `the path takes no body`},
		{http.MethodPost, "items", `{"text":"a","number":1}`, `cannot be set together with another field of its oneof`},
		{http.MethodPost, "items", `{"aBool":true,"a_bool":true}`, `aBool: it is given more than once`},
		{http.MethodPost, "items", `{"labels":{"a":"1","a":"2"}}`, `labels[a]: it is given more than once`},
		{
			http.MethodPost, "items", `{"innerByName":{"x":{"colour":1}}}`,
			`innerByName[x].colour: it is not a field of shapes.v1.Inner`,
		},
		{http.MethodPatch, "items/a", `{"name":"items/b"}`, `path: item.name: the body sets it to another value`},
	} {
		s.refuses(t, tc.path+" "+tc.body, s.send(t, tc.method, "/shapes/v1/"+tc.path, tc.body), http.StatusBadRequest,
			"invalid_argument", tc.message)
	}
}

// The parameters that a setting names are ignored.
func TestREST_IgnoredParametersAreDropped(t *testing.T) {
	s := newShapes(t, func(c *gateway.Config) { c.Query.Ignored = []string{"utm_*", "fbclid"} })
	for _, query := range []string{"utm_source=a&utm_=b&fbclid=%FF&a_bool=true", "a_bool=true&fbclid"} {
		s.gets(t, query, s.send(t, http.MethodGet, "/shapes/v1/items?"+query, ""), `{"aBool":true}`)
	}
	s.gets(t, "path without parameters",
		s.send(t, http.MethodPost, "/shapes/v1/items?utm_source=a", `{"aBool":true}`), `{"aBool":true}`)
	s.refuses(t, "another", s.send(t, http.MethodGet, "/shapes/v1/items?fbclid2=a", ""), http.StatusBadRequest,
		"invalid_argument", "is not a field")
	for _, bad := range []string{"", "*", "a*b", "*a"} {
		if err := (rest.Query{Ignored: []string{bad}}).Validate(); err == nil {
			t.Errorf("%q is valid, want an error", bad)
		}
	}
}

// The mask is that of AIP-134: the fields of the body, except those of the path.
func TestREST_PatchFillsAbsentFieldMask(t *testing.T) {
	s := newShapes(t, nil)
	update := s.message(t, "shapes.v1.UpdateRequest")
	for _, tc := range []struct{ query, body, want string }{
		{
			"", `{"aString":"x","inner":{"text":"a","inner":{"number":0}}}`,
			`{"tenantId":"acme","item":{"name":"items/a","aString":"x","inner":{"text":"a","inner":{}}},"updateMask":"aString,inner.text,inner.inner.number"}`,
		},
		{"", `{"name":"items/a","aBool":false}`, `{"tenantId":"acme","item":{"name":"items/a"},"updateMask":"aBool"}`},
		{
			"",
			`{"time":"2026-01-31T12:00:00Z","object":{"a":1},"tags":["x"],"labels":{"a":"b"},"a_bytes":null,"inner":{}}`,
			`{"tenantId":"acme","item":{"name":"items/a","time":"2026-01-31T12:00:00Z","object":{"a":1},"tags":["x"],"labels":{"a":"b"},"inner":{}},"updateMask":"time,object,tags,labels,aBytes,inner"}`,
		},
		{
			"?update_mask=aString", `{"aBool":true}`,
			`{"tenantId":"acme","item":{"name":"items/a","aBool":true},"updateMask":"aString"}`,
		},
		{
			"?updateMask=aBool&text=x", `{"aBool":true}`,
			`{"tenantId":"acme","item":{"name":"items/a","aBool":true},"updateMask":"aBool","text":"x"}`,
		},
		{"", `{}`, `{"tenantId":"acme","item":{"name":"items/a"}}`},
		{"", ``, `{"tenantId":"acme","item":{"name":"items/a"}}`},
	} {
		answer := s.send(t, http.MethodPatch, "/shapes/v1/items/a"+tc.query, tc.body)
		if answer.status != http.StatusOK || !s.same(t, update, answer.text, tc.want) {
			t.Errorf("%s %s: %d %s", tc.query, tc.body, answer.status, answer.text)
		}
	}
}
