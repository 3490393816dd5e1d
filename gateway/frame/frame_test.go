package frame_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
)

func request(t testing.TB, req *projectionv1.QueryRequest) *frame.Frame {
	t.Helper()
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return &frame.Frame{Program: transcode.NewCompiler(nil).Compile(req.ProtoReflect().Descriptor()), Data: data}
}

func TestAFieldIsFoundOnTheWire(t *testing.T) {
	f := request(t, &projectionv1.QueryRequest{View: "wallets", Metadata: map[string]string{"view": "nested"}})
	if view, err := f.Text(2); view != "wallets" || err != nil {
		t.Fatalf("%q, %v", view, err)
	}
	if tenant, err := f.Text(1); tenant != "" || err != nil {
		t.Fatalf("an absent field: %q, %v", tenant, err)
	}
	f.AppendText(1, "acme")
	f.AppendText(1, "acme")
	if tenant, err := f.Text(1); tenant != "acme" || err != nil {
		t.Fatalf("twice the same: %q, %v", tenant, err)
	}
	f.AppendText(1, "globex")
	if _, err := f.Text(1); !errors.Is(err, frame.ErrContradiction) {
		t.Fatalf("twice and different: %v", err)
	}
	var parsed projectionv1.QueryRequest
	if err := proto.Unmarshal(f.Data, &parsed); err != nil || parsed.GetTenantId() != "globex" {
		t.Fatalf("%v, %v", &parsed, err)
	}
	if _, err := (&frame.Frame{Data: []byte{0x08, 0x01}}).Text(1); !errors.Is(err, transcode.ErrWire) {
		t.Fatalf("a number where text is wanted: %v", err)
	}
}

func FuzzText(f *testing.F) {
	f.Add(request(f, &projectionv1.QueryRequest{TenantId: "acme", View: "wallets"}).Data)
	f.Add([]byte{0x0a, 0x01})
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, err := (&frame.Frame{Data: wire}).Text(2)
		var parsed projectionv1.QueryRequest
		if proto.Unmarshal(wire, &parsed) == nil && err == nil && got != parsed.GetView() {
			t.Fatalf("the wire says %q, protobuf says %q", got, parsed.GetView())
		}
	})
}

func TestCodecsMoveBytesAndMessages(t *testing.T) {
	for _, codec := range []connect.Codec{frame.ProtoCodec(), frame.JSONCodec()} {
		t.Run(codec.Name(), func(t *testing.T) {
			in := request(t, &projectionv1.QueryRequest{View: "wallets"})
			var buffer bytes.Buffer
			if err := codec.MarshalWrite(t.Context(), &buffer, in); err != nil {
				t.Fatal(err)
			}
			out := &frame.Frame{Program: in.Program}
			if err := codec.UnmarshalRead(t.Context(), strings.NewReader(buffer.String()), out); err != nil || !bytes.Equal(in.Data, out.Data) {
				t.Fatalf("%x, %v; want %x", out.Data, err, in.Data)
			}
			// Error details are messages.
			buffer.Reset()
			status := &spb.Status{Code: 5, Message: "x"}
			if err := codec.MarshalWrite(t.Context(), &buffer, status); err != nil {
				t.Fatal(err)
			}
			var again spb.Status
			if err := codec.UnmarshalRead(t.Context(), &buffer, &again); err != nil || !proto.Equal(status, &again) {
				t.Fatalf("%v, %v", &again, err)
			}
		})
	}
	if _, err := (frame.GRPCCodec{}).Marshal(7); err == nil {
		t.Error("a number is sent")
	}
}
