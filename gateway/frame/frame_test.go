package frame_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/headgate/headgate/gateway/frame"
	"github.com/headgate/headgate/gateway/transcode"
	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
)

func request(t testing.TB, req *projectionv1.QueryRequest) *frame.Frame {
	t.Helper()
	data, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	return &frame.Frame{Program: transcode.NewCompiler(nil).Compile(req.ProtoReflect().Descriptor()), Data: data}
}

func TestText_FindsFieldOnTheWire(t *testing.T) {
	f := request(t, &projectionv1.QueryRequest{View: "wallets", Metadata: map[string]string{"view": "nested"}})
	if view, err := f.Text(2, ""); view != "wallets" || err != nil {
		t.Fatalf("%q, %v", view, err)
	}
	if tenant, err := f.Text(1, ""); tenant != "" || err != nil {
		t.Fatalf("an absent field: %q, %v", tenant, err)
	}
	f.AppendText(1, "acme")
	f.AppendText(1, "acme")
	if tenant, err := f.Text(1, ""); tenant != "acme" || err != nil {
		t.Fatalf("twice the same: %q, %v", tenant, err)
	}
	f.AppendText(1, "globex")
	if _, err := f.Text(1, ""); !errors.Is(err, frame.ErrContradiction) {
		t.Fatalf("twice and different: %v", err)
	}
	var parsed projectionv1.QueryRequest
	if err := proto.Unmarshal(f.Data, &parsed); err != nil || parsed.GetTenantId() != "globex" {
		t.Fatalf("%v, %v", &parsed, err)
	}
	if _, err := (&frame.Frame{Data: []byte{0x08, 0x01}}).Text(1, ""); !errors.Is(err, transcode.ErrWire) {
		t.Fatalf("a number where text is wanted: %v", err)
	}
}

func TestNames_FindsNestedFields(t *testing.T) {
	wire := func(messages ...proto.Message) (all []byte) { // one after the other: protobuf merges them
		for _, message := range messages {
			data, err := proto.Marshal(message)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		return all
	}
	one := []frame.Step{
		{Number: number(&projectionv1.QueryRequest{}, "query")},
		{Number: number(&projectionv1.Query{}, "filter")},
	}
	list := []frame.Step{
		{Number: number(&aggregatev1.SubmitBatchRequest{}, "commands"), List: true},
		{Number: number(&aggregatev1.BatchCommand{}, "aggregate_type")},
	}
	filter := func(text string) proto.Message {
		return &projectionv1.QueryRequest{Query: &projectionv1.Query{Filter: text}}
	}
	batch := func(types ...string) proto.Message {
		req := &aggregatev1.SubmitBatchRequest{}
		for _, name := range types {
			req.Commands = append(req.Commands, &aggregatev1.BatchCommand{AggregateType: name})
		}
		return req
	}
	for name, test := range map[string]struct {
		wire []byte
		path []frame.Step
		want []string
	}{
		"the message is not there":      {wire(&projectionv1.QueryRequest{View: "v"}), one, []string{""}},
		"field absent":                  {wire(filter("")), one, []string{""}},
		"field present":                 {wire(filter("a")), one, []string{"a"}},
		"the message is there twice":    {wire(filter("a"), filter("b")), one, []string{"a", "b"}},
		"duplicate field, second empty": {wire(filter("a"), filter("")), one, []string{"a", ""}},
		"list without the field":        {wire(batch()), list, []string{}},
		"list with the field":           {wire(batch("a", "b", "a")), list, []string{"a", "b", "a"}},
		"list with one absent field":    {wire(batch("a", "")), list, []string{"a", ""}},
		"list split by another field":   {wire(batch("a"), batch("b")), list, []string{"a", "b"}},
	} {
		got := []string{}
		err := (&frame.Frame{Data: test.wire}).Names(test.path, 0, func(name, part []byte) error {
			if len(part) > 0 {
				t.Errorf("%s: a part %q without a field for it", name, part)
			}
			got = append(got, string(name))
			return nil
		})
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

func TestNames_PartIsSiblingOfName(t *testing.T) {
	command := func(name, command string) *aggregatev1.BatchCommand {
		return &aggregatev1.BatchCommand{AggregateType: name, Command: command}
	}
	wire := wireOf(
		t,
		&aggregatev1.SubmitBatchRequest{
			Commands: []*aggregatev1.BatchCommand{
				command("a", "x"), command("", "y"), command("b", ""), command("a", "x"),
			},
		},
	)
	path := []frame.Step{
		{Number: number(&aggregatev1.SubmitBatchRequest{}, "commands"), List: true},
		{Number: number(&aggregatev1.BatchCommand{}, "aggregate_type")},
	}
	part := number(&aggregatev1.BatchCommand{}, "command")
	var got []string
	collect := func(name, part []byte) error {
		got = append(got, string(name)+"."+string(part))
		return nil
	}
	if err := (&frame.Frame{Data: wire}).Names(path, part, collect); err != nil ||
		!slices.Equal(got, []string{"a.x", ".y", "b.", "a.x"}) {
		t.Fatalf("%q, %v", got, err)
	}
	ended := errors.New("ended")
	if err := (&frame.Frame{Data: wire}).Names(
		path, part, func([]byte, []byte) error { return ended },
	); !errors.Is(err, ended) {
		t.Fatalf("err = %v, want that of the function", err)
	}
	twice := append(wireOf(t, &aggregatev1.SubmitRequest{AggregateType: "a", Command: "x"}),
		wireOf(t, &aggregatev1.SubmitRequest{Command: "y"})...)
	single := []frame.Step{{Number: number(&aggregatev1.SubmitRequest{}, "aggregate_type")}}
	if err := (&frame.Frame{Data: twice}).Names(
		single, number(&aggregatev1.SubmitRequest{}, "command"), collect,
	); !errors.Is(err, frame.ErrContradiction) {
		t.Fatalf("two commands in one request: err = %v", err)
	}
}

func FuzzText(f *testing.F) {
	f.Add(request(f, &projectionv1.QueryRequest{TenantId: "acme", View: "wallets"}).Data)
	f.Add([]byte{0x0a, 0x01})
	f.Fuzz(func(t *testing.T, wire []byte) {
		got, err := (&frame.Frame{Data: wire}).Text(2, "")
		var parsed projectionv1.QueryRequest
		if proto.Unmarshal(wire, &parsed) == nil && err == nil && got != parsed.GetView() {
			t.Fatalf("wire value %q, protobuf value %q", got, parsed.GetView())
		}
	})
}

func TestCodecs_PassFramesAndMessages(t *testing.T) {
	for _, codec := range []connect.Codec{frame.ProtoCodec(), frame.JSONCodec()} {
		t.Run(codec.Name(), func(t *testing.T) {
			in := request(t, &projectionv1.QueryRequest{View: "wallets"})
			var buffer bytes.Buffer
			if err := codec.MarshalWrite(t.Context(), &buffer, in); err != nil {
				t.Fatal(err)
			}
			out := &frame.Frame{Program: in.Program}
			if err := codec.UnmarshalRead(t.Context(), strings.NewReader(buffer.String()), out); err != nil ||
				!bytes.Equal(in.Data, out.Data) {
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

func TestRelease_SendInProgressHoldsItsReference(t *testing.T) {
	text := strings.Repeat("a message of two buffers ", 200)
	received := func() mem.BufferSlice {
		half := len(text) / 2
		return mem.BufferSlice{
			mem.Copy([]byte(text[:half]), frame.Buffers), mem.Copy([]byte(text[half:]), frame.Buffers),
		}
	}
	lent := &frame.Frame{Lend: true}
	read := func() {
		t.Helper()
		data := received()
		if err := (frame.GRPCCodec{}).Unmarshal(data, lent); err != nil {
			t.Fatal(err)
		}
		data.Free() // as grpc-go does
		if string(lent.Data) != text {
			t.Fatalf("%q", lent.Data)
		}
	}
	read()
	read() // gives the first back
	sent, err := (frame.GRPCCodec{}).Marshal(lent)
	if err != nil {
		t.Fatal(err)
	}
	lent.Release()
	lent.Release() // nothing is left to give back
	if lent.Len() != 0 {
		t.Errorf("%d bytes are there after the release", lent.Len())
	}
	read() // into other memory than what is being sent
	for i := range lent.Data {
		lent.Data[i] = 'x'
	}
	if string(sent.Materialize()) != text {
		t.Error("the message changed while being sent")
	}
	sent.Free()
}

func TestAppendText_LentBufferIsNotModified(t *testing.T) {
	request, err := proto.Marshal(&projectionv1.QueryRequest{View: strings.Repeat("wallets", 400)})
	if err != nil {
		t.Fatal(err)
	}
	buffer := frame.Buffers.Get(4 * len(request)) // has room behind the message
	message := mem.NewBuffer(buffer, frame.Buffers)
	copy(*buffer, request)
	(*buffer)[len(request)] = '!'
	lent := &frame.Frame{Lend: true}
	if err := (frame.GRPCCodec{}).Unmarshal(mem.BufferSlice{message.Slice(0, len(request))}, lent); err != nil {
		t.Fatal(err)
	}
	lent.AppendText(1, "acme")
	if (*buffer)[len(request)] != '!' {
		t.Error("the memory behind a lent message was written to")
	}
	sent, err := (frame.GRPCCodec{}).Marshal(lent)
	if err != nil {
		t.Fatal(err)
	}
	var out projectionv1.QueryRequest
	if err := proto.Unmarshal(sent.Materialize(), &out); err != nil || out.GetTenantId() != "acme" {
		t.Errorf("%v, tenant %q", err, out.GetTenantId())
	}
	lent.Release()
}

func wireOf(t *testing.T, message proto.Message) []byte {
	t.Helper()
	data, err := proto.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func number(message proto.Message, name string) protowire.Number {
	return message.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name)).Number()
}
