// Package frame is how messages move through the gateway: as bytes, with the
// program that knows their type.
//
// Its codecs take the place of protobuf's: protobuf bytes pass untouched, JSON
// is transcoded straight from and to the wire. A codec is also asked for real
// messages (google.rpc.Status in error details, reflection), which it hands to
// protobuf.
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
	"github.com/headgate/headgate/gateway/transcode"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Frame is a message in wire bytes. Whoever receives into or sends one sets
// Program first; the codecs need it for JSON.
type Frame struct {
	Program *transcode.Program
	Data    []byte
	// Lend says that what is received over gRPC may lie in memory that is used again
	// after [Frame.Release], which whoever receives must call then.
	Lend bool

	lent mem.Buffer // that Data lies in; nil: in memory of its own
}

// Release gives the memory back that the message lies in, if it is lent. Data must not
// be used any more; whoever sends it by gRPC meanwhile has its own hold of it.
func (f *Frame) Release() {
	if f.lent != nil {
		f.lent.Free()
		f.lent, f.Data = nil, nil
	}
}

// Buffers is the memory, by sizes in powers of two up to 1 MiB, that messages and their
// texts lie in while they pass. What nobody asks for again goes with the next collections.
var Buffers = func() mem.BufferPool {
	pool, err := mem.NewBinaryTieredBufferPool(11, 12, 13, 14, 15, 16, 17, 18, 19, 20)
	if err != nil {
		panic(err) // not reached: there are such sizes
	}
	return pool
}()

// Len returns the message's length in bytes.
func (f *Frame) Len() int { return len(f.Data) }

// ErrContradiction says that a field which must be one stands in a message
// twice, with different values.
var ErrContradiction = errors.New("the field is given twice, with different values")

// Text returns a string field of the message, found on the wire: known itself if it is that,
// else a copy. Errors: [ErrContradiction], [transcode.ErrWire].
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

// field returns a string field of a message, found on the wire, as a part of wire. Errors:
// [ErrContradiction], [transcode.ErrWire].
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

// Step is a field on the way to one inside it.
type Step struct {
	Number protowire.Number
	// List says that there may be any number of it, none included.
	List bool
}

// Names calls each with the string field that path leads to, through messages that may be
// repeated, and with the string field part beside it; part 0: with an empty one. The values
// are parts of the message. A message without a field has an empty value, and so has one that is
// not there, but for lists, of which none have no value. Errors: each's, [transcode.ErrWire],
// and [ErrContradiction] for a field that must be one and stands twice.
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

// AppendText adds a string field to the message.
func (f *Frame) AppendText(number protowire.Number, value string) {
	f.Data = protowire.AppendTag(f.Data, number, protowire.BytesType)
	f.Data = protowire.AppendString(f.Data, value)
}

// buffer is what Connect's writers offer for encoding in place.
type buffer interface {
	AvailableBuffer() []byte
}

// protoCodec passes frames as they are.
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

// JSONCodec returns Connect's codec for JSON texts.
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

// NoJSON returns the error, INTERNAL, for a client whose answer could not be written as JSON:
// the node's message is malformed, or has a value without a JSON form.
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

// Wire returns a message's bytes: those of a [*Frame] themselves, or a protobuf message
// that is encoded.
func Wire(msg any) ([]byte, error) {
	switch m := msg.(type) {
	case *Frame:
		return m.Data, nil
	case proto.Message:
		return proto.Marshal(m)
	}
	return nil, fmt.Errorf("frame: cannot send a %T", msg)
}

// Take has msg be what came by gRPC, and frees the buffer when nobody needs it any more.
func Take(buffer mem.Buffer, msg any) error {
	switch m := msg.(type) {
	case *Frame:
		m.Release()
		if m.Lend {
			m.lent = buffer
			m.Data = slices.Clip(buffer.ReadOnlyData()) // what is added lies elsewhere
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
	if f, ok := msg.(*Frame); ok && f.lent != nil && f.lent.Len() == len(f.Data) { // nothing was added
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
