// Package frame carries messages through the gateway as wire bytes, with the transcoding program of their type.
//
// Its codecs replace those of protobuf: protobuf bytes pass unchanged, and JSON is transcoded directly from and to wire
// bytes. Other messages (google.rpc.Status in error details, reflection) are encoded by protobuf.
package frame

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway/transcode"
)

// Frame is a message in wire bytes. Program must be set before the frame is received or sent: the codecs need it for
// JSON.
type Frame struct {
	Program *transcode.Program
	Data    []byte
	// Lend permits a message that is received over gRPC to alias a pooled buffer. The receiver must then call
	// [Frame.Release].
	Lend bool

	lent mem.Buffer // the buffer that Data aliases; nil: none
}

// Release releases the buffer that Data aliases, if there is one. Data must not be used afterwards;
// a gRPC send in progress holds its own reference.
func (f *Frame) Release() {
	if f.lent != nil {
		f.lent.Free()
		f.lent, f.Data = nil, nil
	}
}

// Buffers is the pool of buffers for messages and their texts, with sizes of powers of two up to 1 MiB. The garbage
// collector frees unused buffers.
var Buffers = func() mem.BufferPool {
	pool, err := mem.NewBinaryTieredBufferPool(11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		panic(err) // not reached: the sizes are valid
	}
	return pool
}()

// Len returns the message's length in bytes.
func (f *Frame) Len() int { return len(f.Data) }

// ErrContradiction reports that a singular field occurs twice in a message, with different values.
var ErrContradiction = errors.New("the field is given twice, with different values")

// Text returns a string field of the message: known itself if the value is equal, to save an allocation, and otherwise
// a copy. Errors: [ErrContradiction], [transcode.ErrWire].
func (f *Frame) Text(number protowire.Number, known string) (value string, err error) {
	text, found, err := field(f.Data, number)
	switch {
	case err != nil || !found:
		return "", err
	case known == string(text):
		return known, nil
	}
	return string(text), nil
}

// field returns a string field of a message in wire bytes. The value aliases wire. Errors: [ErrContradiction],
// [transcode.ErrWire].
func field(wire []byte, number protowire.Number) (value []byte, found bool, err error) {
	for len(wire) > 0 {
		n, wireType, tag, size := transcode.ConsumeField(wire)
		if size < 0 {
			return nil, false, transcode.ErrWire
		}
		if n == number {
			if wireType != protowire.BytesType {
				return nil, false, transcode.ErrWire
			}
			text, _ := protowire.ConsumeBytes(wire[tag:])
			if found && !bytes.Equal(value, text) {
				return nil, false, ErrContradiction
			}
			value, found = text, true
		}
		wire = wire[tag+size:]
	}
	return value, found, nil
}

// Step is one field of a path of fields.
type Step struct {
	Number protowire.Number
	// List reports whether the field is repeated.
	List bool
}

// Names calls each for every string field at the end of path, which may lead through repeated messages, with the string
// field part of the same message (0: ""). The values alias the message. An absent field or singular message yields an
// empty value; an empty list yields none. Errors: those of each, [transcode.ErrWire], and [ErrContradiction].
func (f *Frame) Names(path []Step, part protowire.Number, each func(name, part []byte) error) error {
	return names(f.Data, path, part, each)
}

func names(wire []byte, path []Step, part protowire.Number, each func(name, part []byte) error) error {
	if len(path) == 1 {
		name, _, err := field(wire, path[0].Number)
		if err != nil {
			return err
		}
		var beside []byte
		if part != 0 {
			if beside, _, err = field(wire, part); err != nil {
				return err
			}
		}
		return each(name, beside)
	}
	found := path[0].List
	for len(wire) > 0 {
		n, wireType, tag, size := transcode.ConsumeField(wire)
		if size < 0 || n == path[0].Number && wireType != protowire.BytesType {
			return transcode.ErrWire
		}
		if n == path[0].Number {
			found = true
			inner, _ := protowire.ConsumeBytes(wire[tag:])
			if err := names(inner, path[1:], part, each); err != nil {
				return err
			}
		}
		wire = wire[tag+size:]
	}
	if !found {
		return each(nil, nil)
	}
	return nil
}

// AppendText appends a string field to the message.
func (f *Frame) AppendText(number protowire.Number, value string) {
	f.Data = protowire.AppendTag(f.Data, number, protowire.BytesType)
	f.Data = protowire.AppendString(f.Data, value)
}

// buffer is implemented by Connect's writers, for encoding in place.
type buffer interface {
	AvailableBuffer() []byte
}

// protoCodec passes frames unchanged.
type protoCodec struct{ *connectproto.BinaryCodec }

// ProtoCodec returns Connect's codec for protobuf bytes.
func ProtoCodec() connect.Codec { return protoCodec{connectproto.NewBinaryCodec()} }

// MarshalWrite implements [connect.Codec].
func (c protoCodec) MarshalWrite(ctx context.Context, dst io.Writer, msg any) error {
	f, ok := msg.(*Frame)
	if !ok {
		return c.BinaryCodec.MarshalWrite(ctx, dst, msg)
	}
	_, err := dst.Write(f.Data)
	return err
}

// UnmarshalRead implements [connect.Codec].
func (c protoCodec) UnmarshalRead(ctx context.Context, src io.Reader, msg any) (err error) {
	f, ok := msg.(*Frame)
	if !ok {
		return c.BinaryCodec.UnmarshalRead(ctx, src, msg)
	}
	f.Data, err = io.ReadAll(src)
	return err
}

// jsonCodec transcodes frames.
type jsonCodec struct{ *connectproto.JSONCodec }

// JSONCodec returns Connect's codec for JSON.
func JSONCodec() connect.Codec { return jsonCodec{connectproto.NewJSONCodec()} }

// MarshalWrite implements [connect.Codec].
func (c jsonCodec) MarshalWrite(ctx context.Context, dst io.Writer, msg any) error {
	f, ok := msg.(*Frame)
	if !ok {
		return c.JSONCodec.MarshalWrite(ctx, dst, msg)
	}
	var place []byte
	if b, ok := dst.(buffer); ok {
		place = b.AvailableBuffer()
	}
	text, err := f.Program.AppendJSON(place, f.Data)
	if err != nil {
		return NoJSON(err)
	}
	_, err = dst.Write(text)
	return err
}

// NoJSON returns the INTERNAL error of a response that cannot be encoded as JSON: the node's message is malformed, or
// has a value without a JSON form.
func NoJSON(err error) error {
	message := "the node's answer has no JSON form"
	if errors.Is(err, transcode.ErrWire) {
		message = "the node's answer is not a valid protobuf message of its type"
	}
	return connect.NewError(connect.CodeInternal, message).WithCause(err)
}

// UnmarshalRead implements [connect.Codec].
func (c jsonCodec) UnmarshalRead(ctx context.Context, src io.Reader, msg any) error {
	f, ok := msg.(*Frame)
	if !ok {
		return c.JSONCodec.UnmarshalRead(ctx, src, msg)
	}
	text, err := io.ReadAll(src)
	if err != nil {
		return err
	}
	f.Data, err = f.Program.AppendWire(make([]byte, 0, len(text)), text)
	return err
}

// Wire returns the wire bytes of a message: those of a [*Frame] without a copy, or the encoded protobuf message.
func Wire(msg any) ([]byte, error) {
	switch m := msg.(type) {
	case *Frame:
		return m.Data, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("frame: cannot send a %T", msg)
}

// Take decodes a gRPC message into msg and releases buffer once it is unreferenced.
func Take(buffer mem.Buffer, msg any) error {
	switch m := msg.(type) {
	case *Frame:
		m.Release()
		if m.Lend {
			m.lent = buffer
			m.Data = slices.Clip(buffer.ReadOnlyData()) // appending must not write to buffer
			return nil
		}
		defer buffer.Free()
		m.Data = slices.Clone(buffer.ReadOnlyData())
		return nil
	case proto.Message:
		defer buffer.Free()
		return proto.Unmarshal(buffer.ReadOnlyData(), m)
	}
	return fmt.Errorf("frame: cannot receive a %T", msg)
}

// GRPCCodec is grpc-go's codec for frames and for messages.
type GRPCCodec struct{}

// Name implements encoding.CodecV2.
func (GRPCCodec) Name() string { return connect.CodecNameProto }

// Marshal implements encoding.CodecV2.
func (GRPCCodec) Marshal(msg any) (mem.BufferSlice, error) {
	if f, ok := msg.(*Frame); ok && f.lent != nil && f.lent.Len() == len(f.Data) { // nothing was appended
		f.lent.Ref()
		return mem.BufferSlice{f.lent}, nil
	}
	data, err := Wire(msg)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (GRPCCodec) Unmarshal(data mem.BufferSlice, msg any) error {
	return Take(data.MaterializeToBuffer(Buffers), msg)
}
