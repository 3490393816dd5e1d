package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/gateway"
	"github.com/headgate/headgate/internal/rpc"
)

// everything returns a message of shapes.v1.Everything with a string.
func (s *shapes) everything(text string) *dynamicpb.Message {
	message := dynamicpb.NewMessage(s.everyone)
	message.Set(s.everyone.Fields().ByName("a_string"), protoreflect.ValueOfString(text))
	return message
}

// The test reads until several keep-alives have arrived, before and after the first message.
func TestStream_IdleStreamSendsKeepAlives(t *testing.T) {
	s := newShapes(t, func(c *gateway.Config) { c.KeepAlive = 5 * time.Millisecond })
	for accept, tc := range map[string]struct{ beat, message, media string }{
		"text/event-stream":    {":\n", "data: ", "text/event-stream"},
		"application/x-ndjson": {"\n", `{"aString"`, "application/x-ndjson"},
	} {
		speak := make(chan struct{})
		s.setStreams(func(ctx context.Context, _ string, stream connect.ServerStream) error {
			if err := stream.Receive(s.everything("")); err != nil {
				return err
			}
			select {
			case <-speak:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := stream.Send(s.everything("x")); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		})
		res := s.open(t, http.MethodGet, "/shapes/v1/items:watch", nil, "Accept", accept)
		lines := bufio.NewReader(res.Body)
		beats := func(count int) {
			for count > 0 {
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatalf("%s: %v", accept, err)
				}
				if line == tc.beat {
					count--
				}
			}
		}
		beats(2)
		close(speak)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v", accept, err)
			}
			if strings.HasPrefix(line, tc.message) {
				break
			}
		}
		beats(2)
		if got := res.Header.Get("Content-Type"); got != tc.media {
			t.Errorf("%s: %s", accept, got)
		}
		_ = res.Body.Close()
	}
}

// The stream fails after its first message.
func TestStream_LastEventHasErrorDetails(t *testing.T) {
	s := newShapes(t, nil)
	s.setStreams(func(_ context.Context, _ string, stream connect.ServerStream) error {
		if err := stream.Receive(s.everything("")); err != nil {
			return err
		}
		if err := stream.Send(s.everything("x")); err != nil {
			return err
		}
		return rpc.WithDetails(connect.NewError(connect.CodeUnavailable, "not now"),
			&errdetails.RetryInfo{RetryDelay: durationpb.New(time.Second)})
	})
	const want = `{"error":{"code":"unavailable","message":"not now","details":[{"type":"google.rpc.RetryInfo","value":"CgIIAQ"`
	events := s.send(t, http.MethodGet, "/shapes/v1/items:watch", "", "Accept", "text/event-stream")
	if !strings.Contains(events.text, "id: x\ndata: ") ||
		!strings.Contains(events.text, "\n\nevent: error\ndata: "+want) || !strings.HasSuffix(events.text, "}\n\n") {
		t.Errorf("%q", events.text)
	}
	lines := s.send(t, http.MethodGet, "/shapes/v1/items:watch", "")
	if !strings.Contains(lines.text, "\n"+want) || strings.Count(lines.text, "\n") != 2 {
		t.Errorf("%q", lines.text)
	}
}

// Accept headers have quality values.
func TestStream_AcceptSelectsFormat(t *testing.T) {
	s := newShapes(t, nil)
	for accept, want := range map[string]string{
		"": "application/x-ndjson", "*/*": "application/x-ndjson", "text/event-stream": "text/event-stream",
		"text/*": "text/event-stream",
		"text/event-stream;q=0.1, application/x-ndjson;q=0.9": "application/x-ndjson",
		"text/event-stream;q=0.9, application/json;q=0.1":     "text/event-stream",
		"text/event-stream;q=0":                               "application/x-ndjson",
		"text/event-stream, */*;q=0.1":                        "text/event-stream",
		"application/json, text/event-stream":                 "text/event-stream",
		"text/event-stream;q=0, text/*":                       "application/x-ndjson",
		"text/html":                                           "application/x-ndjson",
	} {
		if answer := s.send(
			t, http.MethodGet, "/shapes/v1/items:watch", "", "Accept", accept,
		); answer.status != http.StatusOK || answer.header.Get("Content-Type") != want {
			t.Errorf("%q: %d %s, want %s", accept, answer.status, answer.header.Get("Content-Type"), want)
		}
	}
}

// Client and bidirectional streams are sent over REST.
func TestStream_RequestsAreJSONValues(t *testing.T) {
	s := newShapes(t, nil)
	collect := func(body io.Reader, header ...string) httpAnswer {
		return s.sendBody(t, http.MethodPost, "/shapes/v1/items/a:collect", body, header...)
	}
	s.gets(
		t, "three",
		collect(strings.NewReader("{\"aString\":\"1\"}\n{}\n{\"aString\":\"3\"}\n"), "Content-Type",
			"application/x-ndjson"),
		`{"name":"a","aString":"3","aUint32":3}`,
	)
	if answer := collect(nil); answer.status != http.StatusOK || answer.text != "{}" {
		t.Errorf("no message: %d %s", answer.status, answer.text)
	}
	s.refuses(t, "not JSON", collect(strings.NewReader("{}\n{")), http.StatusBadRequest, "invalid_argument",
		"not a sequence of JSON values")
	s.refuses(t, "unknown field", collect(strings.NewReader("{}\n{\"colour\":1}")), http.StatusBadRequest,
		"invalid_argument", "message 2: JSON line 1 column 2: colour: it is not a field of")
	s.refuses(
		t, "other value in the body", collect(strings.NewReader(`{"name":"b"}`)), http.StatusBadRequest,
		"invalid_argument",
		"the body sets it to another value",
	)
	s.refuses(t, "too large", collect(strings.NewReader(`{"aString":"`+strings.Repeat("x", 1<<20)+`"}`)),
		http.StatusRequestEntityTooLarge, "resource_exhausted", "larger than")
	s.refuses(t, "compressed", collect(strings.NewReader("{}"), "Content-Encoding", "gzip"),
		http.StatusUnsupportedMediaType, "unimplemented", "cannot have a content encoding")
	s.refuses(t, "unsupported content type", collect(strings.NewReader("{}"), "Content-Type", "text/csv"),
		http.StatusUnsupportedMediaType, "invalid_argument", "send application/x-ndjson")

	// Bidirectional: each request is answered before the next one is sent.
	reader, writer := io.Pipe()
	opened := make(chan *http.Response, 1)
	go func() {
		opened <- s.open(t, http.MethodPost, "/shapes/v1/items:chat", reader, "Content-Type", "application/x-ndjson")
	}()
	if _, err := io.WriteString(writer, "{\"aString\":\"1\"}\n"); err != nil {
		t.Fatal(err)
	}
	res := <-opened
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for _, text := range []string{"1", "2", "3"} {
		if text != "1" {
			if _, err := io.WriteString(writer, `{"aString":"`+text+"\"}\n"); err != nil {
				t.Fatal(err)
			}
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"aString":"`+text+`"`) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	_ = writer.Close()
	if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
		t.Errorf("end of the stream: %q, %v", rest, err)
	}
}

// Values arrive later than the body of a unary request may, and one stops halfway.
func TestStream_LateRESTValueIsAccepted(t *testing.T) {
	s := newShapes(t, func(c *gateway.Config) { c.Listen.BodyTimeout = 200 * time.Millisecond })
	later := func() { // requests that began now are cut off
		for range 3 {
			if status, text := unfinished(
				t, s.edge, "/shapes/v1/items", "application/json", s.token(t, "acme", "shapes.write"),
			); status != http.StatusRequestTimeout {
				t.Fatalf("%d %s", status, text)
			}
		}
	}
	reader, writer := io.Pipe()
	opened := make(chan *http.Response, 1)
	go func() {
		opened <- s.open(t, http.MethodPost, "/shapes/v1/items:chat", reader, "Content-Type", "application/x-ndjson")
	}()
	var lines *bufio.Reader
	for _, text := range []string{"1", "2"} {
		later()
		for _, part := range []string{`{"aString":"` + text + `"}`, "\n"} { // the line's end begins no value
			if _, err := io.WriteString(writer, part); err != nil {
				t.Fatal(err)
			}
		}
		if lines == nil {
			res := <-opened
			defer res.Body.Close()
			lines = bufio.NewReader(res.Body)
		}
		if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"aString":"`+text+`"`) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if _, err := io.WriteString(writer, `{"aString":`); err != nil {
		t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, `"code":"deadline_exceeded"`) {
		t.Fatalf("truncated value: %q, %v", line, err)
	}
	_ = writer.Close()
}

// Both HTTP/1.1 and HTTP/2, known and unknown services are called.
func TestGRPCWeb_UnknownMethodIsUnimplemented(t *testing.T) {
	s := newShapes(t, nil)
	for _, path := range []string{"/shapes.v1.Shapes/Nothing", "/shapes.v1.Nothing/Nothing", "/nothing"} {
		for _, media := range []string{
			"application/grpc-web+proto", "application/grpc-web", "application/grpc-web+json",
			"application/grpc-web-text+proto",
		} {
			for name, client := range map[string]*http.Client{"HTTP/1.1": s.plain, "HTTP/2": s.h2c} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path,
					strings.NewReader("AAAAAAA="))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", media)
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(res.Body)
				_ = res.Body.Close()
				if plain, err := base64.StdEncoding.DecodeString(string(text)); strings.Contains(media, "text") &&
					err == nil {
					text = plain
				}
				if res.StatusCode != http.StatusOK ||
					res.Header.Get("Grpc-Status") != "12" &&
						!strings.Contains(strings.ToLower(string(text)), "grpc-status: 12") {
					t.Errorf("%s, %s, %s: %d %v %q", path, media, name, res.StatusCode, res.Header, text)
				}
			}
		}
	}
	s.refuses(t, "GET", s.send(t, http.MethodGet, "/shapes.v1.Shapes/Nothing", ""), http.StatusNotFound,
		"unimplemented", "is not served")
}

// A unary method and a stream are called.
func TestGRPCWebText_IsGRPCWebInBase64(t *testing.T) {
	s := newShapes(t, nil)
	s.setStreams(func(_ context.Context, _ string, stream connect.ServerStream) error {
		request := s.everything("")
		if err := stream.Receive(request); err != nil {
			return err
		}
		for range 3 {
			if err := stream.Send(request); err != nil {
				return err
			}
		}
		return connect.NewError(connect.CodeAborted, "end of the stream")
	})
	for method, tc := range map[string]struct {
		messages int
		status   string
	}{"Create": {1, "grpc-status: 0"}, "Watch": {3, "grpc-status: 10"}} {
		for _, text := range []string{"", "a", "ab", "abc", strings.Repeat("long ", 2000)} {
			wire, err := proto.Marshal(s.everything(text))
			if err != nil {
				t.Fatal(err)
			}
			frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(wire))),
				wire...)
			// In two parts, the first of them padded.
			body := base64.StdEncoding.EncodeToString(frame[:4]) + base64.StdEncoding.EncodeToString(frame[4:])
			answer := s.send(t, http.MethodPost, "/shapes.v1.Shapes/"+method, body, "Content-Type",
				"application/grpc-web-text+proto")
			if answer.status != http.StatusOK ||
				answer.header.Get("Content-Type") != "application/grpc-web-text+proto" {
				t.Fatalf("%s: %d %v %s", method, answer.status, answer.header, answer.text)
			}
			plain, err := decodeParts(answer.text)
			if err != nil {
				t.Fatalf("%s: %v: %q", method, err, answer.text)
			}
			messages := 0
			for len(plain) >= 5 && plain[0] == 0 {
				length := binary.BigEndian.Uint32(plain[1:])
				got := s.everything("")
				if err := proto.Unmarshal(plain[5:5+length], got); err != nil ||
					got.Get(s.everyone.Fields().ByName("a_string")).String() != text {
					t.Errorf("%s: %v, %v", method, got, err)
				}
				plain, messages = plain[5+length:], messages+1
			}
			if messages != tc.messages || len(plain) < 5 || plain[0] != 0x80 ||
				!bytes.Contains(bytes.ToLower(plain), []byte(tc.status)) {
				t.Errorf("%s: %d messages, then %q", method, messages, plain)
			}
		}
	}
	for _, body := range []string{"%%%%", "AAA"} {
		answer := s.send(t, http.MethodPost, "/shapes.v1.Shapes/Create", body, "Content-Type",
			"application/grpc-web-text")
		plain, _ := decodeParts(answer.text)
		if answer.status != http.StatusOK ||
			answer.header.Get("Grpc-Status") != "3" && !bytes.Contains(bytes.ToLower(plain), []byte("grpc-status: 3")) {
			t.Errorf("%q: %d %v %q", body, answer.status, answer.header, plain)
		}
	}
}

// decodeParts decodes base64 with padding inside.
func decodeParts(text string) ([]byte, error) {
	var out []byte
	if len(text)%4 != 0 {
		return nil, errors.New("truncated part")
	}
	for ; text != ""; text = text[4:] {
		plain, err := base64.StdEncoding.DecodeString(text[:4])
		if err != nil {
			return nil, err
		}
		out = append(out, plain...)
	}
	return out, nil
}
