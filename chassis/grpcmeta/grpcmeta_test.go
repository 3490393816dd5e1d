package grpcmeta

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/contextkit"
	"golang.org/x/net/http2/hpack"
)

func TestHeadersGoOverAndComeBack(t *testing.T) {
	binary := connect.EncodeBinaryHeader([]byte{0, 1, 0xff})
	var header connect.Header
	for name, values := range map[string][]string{
		"X-Of-Their-Own": {"one", "two"}, "Some-Bin": {binary}, "Authorization": {"Bearer x"},
		// A transport's own stay with it.
		"Content-Type": {"application/json"}, "Te": {"trailers"}, "Connection": {"close"}, "Grpc-Timeout": {"1S"}, "Connect-Protocol-Version": {"1"},
	} {
		header.SetValues(name, values)
	}
	want := map[string][]string{"X-Of-Their-Own": {"one", "two"}, "Some-Bin": {binary}, "Authorization": {"Bearer x"}}
	fields := fieldsOf(t, &header)
	for way, back := range map[string]func(*connect.Header){
		"as metadata": func(to *connect.Header) { Into(to, From(&header)) },
		"as fields":   func(to *connect.Header) { Add(to, fields) },
		"in place":    func(to *connect.Header) { into(t, &header, to) },
	} {
		var got connect.Header
		back(&got)
		if got.Len() != len(want) {
			t.Errorf("%s: %d headers come back, want %d", way, got.Len(), len(want))
		}
		for name, values := range want {
			if !slices.Equal(got.Values(name), values) {
				t.Errorf("%s: %s is %q, want %q", way, name, got.Values(name), values)
			}
		}
	}
	for _, field := range fields {
		if field.Name != strings.ToLower(field.Name) {
			t.Errorf("the field %q is not in lower case", field.Name)
		}
	}
}

func TestATransportsOwnFieldsAreNotHeaders(t *testing.T) {
	var header connect.Header
	Add(&header, []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}, {Name: "grpc-status", Value: "0"}, {Name: "date", Value: "today"},
		{Name: "grpc-retry-pushback-ms", Value: "100"},
	})
	if header.Len() != 1 || header.Get("grpc-retry-pushback-ms") != "100" {
		t.Errorf("%d headers, the pushback is %q", header.Len(), header.Get("grpc-retry-pushback-ms"))
	}
}

// A call's contract goes to the next hop. What comes back of it is what was said.
func TestTheContractTravelsOneWay(t *testing.T) {
	var request, answer connect.Header
	for _, name := range contextkit.Headers() {
		request.Set(name, "said")
	}
	fields := fieldsOf(t, &request)
	if len(fields) != len(contextkit.Headers()) {
		t.Errorf("%d of %d headers are sent", len(fields), len(contextkit.Headers()))
	}
	if Add(&answer, fields); answer.Len() != 0 {
		t.Errorf("%d headers come back", answer.Len())
	}
}

func TestWhatCannotTravelIsRefused(t *testing.T) {
	for name, value := range map[string]string{"X-Own": "\xfc", "X-Line": "a\nb", "X-Tab": "a\tb", "X Y": "a"} {
		var fields Fields
		fields.Add(name, value)
		for way, err := range map[string]error{"sent": second(fields.List()), "found": fields.Into(new(connect.Header))} {
			if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), strings.ToLower(name)) {
				t.Errorf("%s: %q is %s: %v", name, value, way, err)
			}
		}
		if fields.Reset(); second(fields.List()) != nil {
			t.Errorf("%s: is remembered", name)
		}
	}
}

// rendered returns headers as fields.
func rendered(t *testing.T, header *connect.Header) *Fields {
	t.Helper()
	var fields Fields
	if err := Of(header).WriteHeader(t.Context(), &fields); err != nil {
		t.Fatal(err)
	}
	return &fields
}

func fieldsOf(t *testing.T, header *connect.Header) []hpack.HeaderField {
	t.Helper()
	list, err := rendered(t, header).List()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func into(t *testing.T, header, to *connect.Header) {
	t.Helper()
	if err := rendered(t, header).Into(to); err != nil {
		t.Fatal(err)
	}
}

func second[T any](_ T, err error) error { return err }
