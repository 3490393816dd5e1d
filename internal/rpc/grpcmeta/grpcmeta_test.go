package grpcmeta

import (
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/contextkit"
)

func TestHeaders_RoundTrip(t *testing.T) {
	binary := connect.EncodeBinaryHeader([]byte{0, 1, 0xff})
	var header connect.Header
	for name, values := range map[string][]string{
		"X-Of-Their-Own": {"one", "two"}, "Some-Bin": {binary}, "Authorization": {"Bearer x"},
		// A transport's own stay with it.
		"Content-Type": {"application/json"}, "Te": {"trailers"}, "Connection": {"close"}, "Grpc-Timeout": {"1S"},
		"Connect-Protocol-Version": {"1"},
	} {
		header.SetValues(name, values)
	}
	want := map[string][]string{"X-Of-Their-Own": {"one", "two"}, "Some-Bin": {binary}, "Authorization": {"Bearer x"}}
	fields := fieldsOf(t, &header).List()
	for way, back := range map[string]func(*connect.Header){
		"as metadata": func(to *connect.Header) { Into(to, From(&header)) },
		"as fields":   func(to *connect.Header) { Add(to, fields) },
		"in place":    func(to *connect.Header) { fieldsOf(t, &header).Into(to) },
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

func TestHeaders_OmitATransportsOwnFields(t *testing.T) {
	var header connect.Header
	Add(&header, []hpack.HeaderField{
		{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: "0"}, {Name: "date", Value: "today"},
		{Name: "grpc-retry-pushback-ms", Value: "100"},
	})
	if header.Len() != 1 || header.Get("grpc-retry-pushback-ms") != "100" {
		t.Errorf("%d headers, the pushback is %q", header.Len(), header.Get("grpc-retry-pushback-ms"))
	}
}

// The contract's headers are sent in requests; those of responses are dropped.
func TestHeaders_ContractTravelsOneWay(t *testing.T) {
	var request, answer connect.Header
	for _, name := range contextkit.Headers() {
		request.Set(name, "said")
	}
	fields := fieldsOf(t, &request).List()
	if len(fields) != len(contextkit.Headers()) {
		t.Errorf("%d of %d headers are sent", len(fields), len(contextkit.Headers()))
	}
	if Add(&answer, fields); answer.Len() != 0 {
		t.Errorf("%d headers come back", answer.Len())
	}
}

func TestHeaders_InvalidOnesAreRejected(t *testing.T) {
	for name, value := range map[string]string{"X-Own": "\xfc", "X-Line": "a\nb", "X-Tab": "a\tb", "X Y": "a"} {
		var header connect.Header
		header.SetValues(name, []string{value})
		if _, err := Write(t.Context(), Of(&header)); connect.CodeOf(err) != connect.CodeInvalidArgument ||
			!strings.Contains(err.Error(), strings.ToLower(name)) {
			t.Errorf("%s: %q is sent: %v", name, value, err)
		}
		if fields := fieldsOf(t, new(connect.Header)); len(fields.List()) != 0 {
			t.Errorf("%s: is remembered", name)
		}
	}
}

func fieldsOf(t *testing.T, header *connect.Header) *Fields {
	t.Helper()
	fields, err := Write(t.Context(), Of(header))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fields.Free)
	return fields
}

func TestInto_NamesThatEveryCallCarriesAllocateNothing(t *testing.T) {
	md := map[string][]string{
		":authority": {"node"}, "content-type": {"application/grpc"}, "user-agent": {"grpc-go"},
		"grpc-accept-encoding": {"gzip"}, "te": {"trailers"},
	}
	var header connect.Header
	got := testing.AllocsPerRun(100, func() { Into(&header, md) })
	if got > 0 {
		t.Errorf("%v objects, want 0", got)
	}
	if header.Len() != 0 {
		t.Errorf("the transport's headers are passed on: %v", header)
	}
}
