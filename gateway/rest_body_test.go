package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/headgate/headgate/internal/rpc/compression"
)

// body returns a google.api.HttpBody.
func (s *shapes) body(t testing.TB, contentType, data string) *dynamicpb.Message {
	t.Helper()
	message := dynamicpb.NewMessage(s.message(t, "google.api.HttpBody"))
	message.Set(message.Descriptor().Fields().ByName("content_type"), protoreflect.ValueOfString(contentType))
	message.Set(message.Descriptor().Fields().ByName("data"), protoreflect.ValueOfBytes([]byte(data)))
	return message
}

// google.api.HttpBody is a request, an answer, and a field of both.
func TestHTTPBody_IsBody(t *testing.T) {
	s := newShapes(t, nil)
	const data = "\x00\xffnot JSON {"
	raw := s.send(t, http.MethodPost, "/shapes/v1/raw", data, "Content-Type", "image/png")
	if raw.status != http.StatusOK || raw.text != data || raw.header.Get("Content-Type") != "image/png" ||
		raw.header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.Contains(raw.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%d %v %q", raw.status, raw.header, raw.text)
	}
	if none := s.send(t, http.MethodPost, "/shapes/v1/raw", ""); none.status != http.StatusOK || none.text != "" ||
		none.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("empty body: %d %v %q", none.status, none.header, none.text)
	}
	echoed := s.send(t, http.MethodPost, "/shapes/v1/uploads/a%2Fb:echo?part=7", data, "Content-Type",
		"application/json")
	if echoed.status != http.StatusOK || echoed.text != data ||
		echoed.header.Get("Content-Type") != "application/json" {
		t.Errorf("field as body: %d %v %q", echoed.status, echoed.header, echoed.text)
	}
	field := s.send(t, http.MethodPut, "/shapes/v1/uploads/a", data, "Content-Type", "text/csv")
	if want := `{"name":"a","file":{"contentType":"text/csv","data":"AP9ub3QgSlNPTiB7"}}`; field.status != http.StatusOK || !s.same(t, s.message(t, "shapes.v1.FileResponse"), field.text, want) {
		t.Errorf("as JSON: %d %s", field.status, field.text)
	}
	for _, c := range compression.All() {
		large := strings.Repeat("text ", 1000)
		got := s.sendBody(t, http.MethodPost, "/shapes/v1/raw", compressed(t, c, large), "Content-Type", "text/plain",
			"Content-Encoding", c.Name(), "Accept-Encoding", "identity")
		if got.status != http.StatusOK || got.text != large {
			t.Errorf("%s: %d, %d bytes", c.Name(), got.status, len(got.text))
		}
	}
	s.refuses(t, "too large", s.send(t, http.MethodPost, "/shapes/v1/raw", strings.Repeat("x", 1<<20+1)),
		http.StatusRequestEntityTooLarge, "resource_exhausted", "larger than")
	s.setAnswer(func(_ context.Context, _ string, request, answer *dynamicpb.Message) error {
		answer.Set(answer.Descriptor().Fields().ByName("content_type"),
			protoreflect.ValueOfString("text/html\r\nSet-Cookie: a=b"))
		answer.Set(answer.Descriptor().Fields().ByName("data"),
			protoreflect.ValueOfBytes([]byte(request.Get(request.Descriptor().Fields().ByName("name")).String())))
		return nil
	})
	answer := s.send(t, http.MethodGet, "/shapes/v1/downloads/a/b%20c", "")
	if answer.text != "a/b c" || answer.header.Get("Content-Type") != "application/octet-stream" ||
		answer.header.Get("Set-Cookie") != "" {
		t.Errorf("invalid content type: %v %q", answer.header, answer.text)
	}
}

// Both directions are streamed in chunks, with an error after the first chunk.
func TestHTTPBody_IsStreamed(t *testing.T) {
	s := newShapes(t, nil)
	fail := false
	s.setStreams(func(_ context.Context, method string, stream connect.ServerStream) error {
		if method == "UploadParts" {
			return s.count(t, stream)
		}
		if err := stream.Receive(dynamicpb.NewMessage(s.message(t, "shapes.v1.FileRequest"))); err != nil {
			return err
		}
		for _, part := range []string{"one ", "two ", ""} {
			if err := stream.Send(s.body(t, "text/csv", part)); err != nil {
				return err
			}
		}
		if fail {
			return connect.NewError(connect.CodeDataLoss, "the rest is lost")
		}
		return stream.Send(s.body(t, "", "three"))
	})
	down := s.send(t, http.MethodGet, "/shapes/v1/parts/a", "")
	if down.status != http.StatusOK || down.text != "one two three" || down.header.Get("Content-Type") != "text/csv" ||
		down.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v %q", down.status, down.header, down.text)
	}
	fail = true
	res := s.open(t, http.MethodGet, "/shapes/v1/parts/a", nil)
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err == nil || string(text) != "one two " {
		t.Errorf("truncated file looks complete: %q, %v", text, err)
	}
	for _, size := range []int{0, 1, 64 << 10, 3<<20 + 1} { // beyond the bound of one message
		up := s.sendBody(t, http.MethodPut, "/shapes/v1/parts/a?part=7", strings.NewReader(strings.Repeat("x", size)),
			"Content-Type", "image/png")
		if want := strconv.Itoa(size) + " image/png a 7"; up.status != http.StatusOK ||
			!strings.Contains(up.text, want) {
			t.Errorf("%d bytes: %d %s", size, up.status, up.text)
		}
	}
}

// count answers with the size of a file that arrives in chunks, and the fields of each chunk.
func (s *shapes) count(t testing.TB, stream connect.ServerStream) error {
	desc := s.message(t, "shapes.v1.FileRequest")
	size, said := 0, ""
	for {
		part := dynamicpb.NewMessage(desc)
		if err := stream.Receive(part); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		file := part.Get(desc.Fields().ByName("file")).Message()
		size += len(file.Get(file.Descriptor().Fields().ByName("data")).Bytes())
		said = file.Get(file.Descriptor().Fields().ByName("content_type")).String() + " " +
			part.Get(desc.Fields().ByName("name")).String() + " " + part.Get(desc.Fields().ByName("part")).String()
	}
	answer := dynamicpb.NewMessage(s.message(t, "shapes.v1.FileResponse"))
	answer.Set(answer.Descriptor().Fields().ByName("name"), protoreflect.ValueOfString(strconv.Itoa(size)+" "+said))
	return stream.Send(answer)
}
