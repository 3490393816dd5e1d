package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	policyv1 "github.com/headgate/headgate/gen/headgate/policy/v1"
)

// TestGet_WithoutMessageNamesWhatIsMissing calls every unary method of the platform and of a foreign service by GET.
func TestGet_WithoutMessageNamesWhatIsMissing(t *testing.T) {
	s := newShapes(t, nil)
	shapes, err := s.catalog.FindDescriptorByName("shapes.v1.Shapes")
	if err != nil {
		t.Fatal(err)
	}
	services := []protoreflect.ServiceDescriptor{shapes.(protoreflect.ServiceDescriptor)}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			services = append(services, file.Services().Get(i))
		}
		return true
	})
	reads := map[bool]int{} // by whether the service is foreign
	for n, service := range services {
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			options, _ := method.Options().(*descriptorpb.MethodOptions)
			if !proto.HasExtension(options,
				policyv1.E_Policy) || method.IsStreamingClient() || method.IsStreamingServer() {
				continue
			}
			path := "/" + string(service.FullName()) + "/" + string(method.Name())
			if options.GetIdempotencyLevel() != descriptorpb.MethodOptions_NO_SIDE_EFFECTS {
				if code, text := s.http(t, http.MethodGet, path, ""); code != http.StatusMethodNotAllowed {
					t.Errorf("GET %s, which has side effects: %d %s", path, code, text)
				}
				continue
			}
			reads[n == 0]++
			for _, query := range []string{"", "?", "?message=%7B%7D", "?connect=v1&encoding=xml&message=%7B%7D"} {
				if code, text := s.http(t, http.MethodGet, path+query, ""); code != http.StatusBadRequest ||
					!strings.Contains(text, `"code":"invalid_argument"`) || !strings.Contains(text, "encoding=json") {
					t.Errorf("GET %s%s: %d %q, want an error that names the parameters", path, query, code, text)
				}
			}
			if code, text := s.http(t, http.MethodGet, path+"?encoding=json", ""); code != http.StatusBadRequest ||
				!strings.Contains(text, "message") {
				t.Errorf("GET %s without a message: %d %q", path, code, text)
			}
			if code, text := s.http(t, http.MethodGet, path+"?encoding=json&message=%7B%7D", "{}"); code !=
				http.StatusBadRequest || !strings.Contains(text, "no body") {
				t.Errorf("GET %s with a body: %d %q", path, code, text)
			}
		}
	}
	if reads[true] == 0 || reads[false] < 10 {
		t.Errorf("%v reads", reads)
	}
}
