package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/gateway/policy"
)

// shapes is the test service of the REST interface (testdata/shapes), which the gateway knows from
// a descriptor set, and whose methods echo their requests.
type shapes struct {
	*edge
	set      []byte
	catalog  *policy.Catalog
	everyone protoreflect.MessageDescriptor // shapes.v1.Everything

	mu      sync.Mutex
	answer  func(ctx context.Context, method string, request *dynamicpb.Message, answer *dynamicpb.Message) error
	streams func(ctx context.Context, method string, stream connect.ServerStream) error
}

func newShapes(t testing.TB, change func(*gateway.Config)) *shapes {
	t.Helper()
	set, err := os.ReadFile("testdata/shapes.binpb")
	if err != nil {
		t.Fatal(err)
	}
	s := &shapes{set: set}
	if s.catalog, err = policy.NewCatalog(set); err != nil {
		t.Fatal(err)
	}
	s.everyone = s.message(t, "shapes.v1.Everything")
	s.edge = startWith(t, change, s.register(t), set)
	return s
}

func (s *shapes) message(t testing.TB, name protoreflect.FullName) protoreflect.MessageDescriptor {
	t.Helper()
	found, err := s.catalog.FindDescriptorByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return found.(protoreflect.MessageDescriptor)
}

// setAnswer replaces the answer of a unary method.
func (s *shapes) setAnswer(answer func(ctx context.Context, method string, request, answer *dynamicpb.Message) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *shapes) setStreams(streams func(ctx context.Context, method string, stream connect.ServerStream) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = streams
}

func (s *shapes) register(t testing.TB) func(*connect.Server) {
	service, err := s.catalog.FindDescriptorByName("shapes.v1.Shapes")
	if err != nil {
		t.Fatal(err)
	}
	methods := service.(protoreflect.ServiceDescriptor).Methods()
	return func(server *connect.Server) {
		for i := range methods.Len() {
			desc := methods.Get(i)
			spec := connect.Spec{Procedure: "/shapes.v1.Shapes/" + string(desc.Name()), Schema: desc}
			if desc.IsStreamingClient() {
				spec.StreamType |= connect.StreamTypeClient
			}
			if desc.IsStreamingServer() {
				spec.StreamType |= connect.StreamTypeServer
			}
			server.Register(
				connect.Method{
					Spec: spec,
					Handler: func(ctx context.Context, _ connect.Spec, stream connect.ServerStream) error {
						if spec.StreamType != connect.StreamTypeUnary {
							s.mu.Lock()
							serve := s.streams
							s.mu.Unlock()
							if serve == nil {
								serve = echoStream(desc)
							}
							return serve(ctx, string(desc.Name()), stream)
						}
						request, answer := dynamicpb.NewMessage(desc.Input()), dynamicpb.NewMessage(desc.Output())
						if err := stream.Receive(request); err != nil {
							return err
						}
						s.mu.Lock()
						reply := s.answer
						s.mu.Unlock()
						if reply == nil {
							reply = echo
						}
						if err := reply(ctx, string(desc.Name()), request, answer); err != nil {
							return err
						}
						return stream.Send(answer)
					},
				},
			)
		}
	}
}

// echo copies the fields that both messages have.
func echo(_ context.Context, _ string, request, answer *dynamicpb.Message) error {
	if request.Descriptor() == answer.Descriptor() {
		proto.Merge(answer, request)
		return nil
	}
	if file := request.Descriptor().Fields().ByName("file"); file != nil && answer.Descriptor() == file.Message() {
		proto.Merge(answer, request.Get(file).Message().Interface())
		return nil
	}
	request.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if to := answer.Descriptor().Fields().ByName(f.Name()); to != nil {
			answer.Set(to, v)
		}
		return true
	})
	return nil
}

// echoStream answers each message of a server stream, and the last one of other streams, where
// a_uint32 or name is the number of messages.
func echoStream(desc protoreflect.MethodDescriptor) func(context.Context, string, connect.ServerStream) error {
	return func(ctx context.Context, method string, stream connect.ServerStream) error {
		answer := dynamicpb.NewMessage(desc.Output())
		count := 0
		for {
			request := dynamicpb.NewMessage(desc.Input())
			err := stream.Receive(request)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			count++
			if desc.IsStreamingServer() {
				answer = dynamicpb.NewMessage(desc.Output())
			}
			if err := echo(ctx, method, request, answer); err != nil {
				return err
			}
			if desc.IsStreamingServer() {
				if err := stream.Send(answer); err != nil {
					return err
				}
			}
		}
		if desc.IsStreamingServer() {
			return nil
		}
		if f := desc.Output().Fields().ByName("a_uint32"); f != nil {
			answer.Set(f, protoreflect.ValueOfUint32(uint32(count)))
		}
		return stream.Send(answer)
	}
}

// httpAnswer is an answer over plain HTTP.
type httpAnswer struct {
	status int
	header http.Header
	text   string
}

// send sends a plain request for the tenant acme, with the headers in pairs.
func (s *shapes) send(t testing.TB, method, path, body string, header ...string) httpAnswer {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	return s.sendBody(t, method, path, reader, header...)
}

func (s *shapes) sendBody(t testing.TB, method, path string, body io.Reader, header ...string) httpAnswer {
	t.Helper()
	res := s.open(t, method, path, body, header...)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return httpAnswer{res.StatusCode, res.Header, string(text)}
}

// open sends a request and returns the response; the caller must close its body.
func (s *shapes) open(t testing.TB, method, path string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url, body)
	if err != nil {
		t.Fatal(err)
	}
	path, req.URL.RawQuery, _ = strings.Cut(path, "?")
	req.URL.Opaque = "//" + req.URL.Host + path // as written, not normalized
	req.Header.Set("Authorization", s.token(t, "acme", "shapes.read", "shapes.write"))
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.plain.Transport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return res
}

// same reports whether two texts are JSON of equal messages.
func (s *shapes) same(t testing.TB, desc protoreflect.MessageDescriptor, got, want string) bool {
	t.Helper()
	a, b := dynamicpb.NewMessage(desc), dynamicpb.NewMessage(desc)
	unmarshal := protojson.UnmarshalOptions{Resolver: s.catalog}
	if err := unmarshal.Unmarshal([]byte(want), b); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	return unmarshal.Unmarshal([]byte(got), a) == nil && proto.Equal(a, b)
}

// gets checks that an answer is a message with tenantId acme.
func (s *shapes) gets(t testing.TB, what string, answer httpAnswer, want string) {
	t.Helper()
	want = strings.Replace(want, "{", `{"tenantId":"acme",`, 1)
	want = strings.Replace(want, ",}", "}", 1)
	if answer.status != http.StatusOK || !s.same(t, s.everyone, answer.text, want) {
		t.Errorf("%s: %d %s, want %s", what, answer.status, answer.text, want)
	}
}

// refuses checks that an answer is an error as JSON.
func (s *shapes) refuses(t testing.TB, what string, answer httpAnswer, status int, code, message string) {
	t.Helper()
	if answer.status != status || !strings.HasPrefix(answer.text, `{"code":"`+code+`"`) ||
		!strings.Contains(answer.text, message) ||
		answer.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %d %s %s, want %d %s %s", what, answer.status, answer.header.Get("Content-Type"), answer.text,
			status, code, message)
	}
}

// compressed returns a text in a content encoding.
func compressed(t testing.TB, c connect.Compressor, text string) *bytes.Buffer {
	t.Helper()
	out := &bytes.Buffer{}
	w, err := c.Compress(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}
