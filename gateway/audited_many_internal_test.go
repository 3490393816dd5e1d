package gateway

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/headgate/headgate/gateway/policy"
	"github.com/headgate/headgate/gateway/transcode"
)

// manyFields are fields of which a request can have millions.
var manyFields = map[string]string{
	"empty texts of a list": "\x1a\x00",
	"a text":                "\x0a\x00",
	"a message":             "\x22\x02\x08\x01",
	"empty messages":        "\x22\x00",
	"unknown":               "\x78\x01",
}

func BenchmarkRequestFields(b *testing.B) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		b.Fatal(err)
	}
	method, _ := table.Method("/control.v1.ApiKeyService/CreateApiKey")
	const size = 4 << 20
	for name, part := range manyFields {
		data := []byte(strings.Repeat(part, size/len(part)))
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				requestFields(method, data)
			}
		})
	}
}

// A request of millions of values costs its record no memory per value.
func TestRequestFields_MillionsOfValuesAllocateLittle(t *testing.T) {
	table, err := policy.Build(protoregistry.GlobalFiles, transcode.NewCompiler(nil))
	if err != nil {
		t.Fatal(err)
	}
	method, ok := table.Method("/control.v1.ApiKeyService/CreateApiKey")
	if !ok {
		t.Fatal("the method is unknown")
	}
	for _, part := range manyFields {
		data := []byte(strings.Repeat(part, (1<<20)/len(part)))
		allocated := testing.AllocsPerRun(1, func() { requestFields(method, data) })
		if allocated > 2*maxAuditValues {
			t.Errorf("%d values of %x allocate %v times", len(data)/len(part), part, allocated)
		}
	}
}
