package grpcgo

import (
	"fmt"

	"connectrpc.com/connect/v2"
	"google.golang.org/grpc/mem"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

// outbound is a message in wire bytes, which may be reused when it has been encoded.
type outbound []byte

// inbound is a received message.
type inbound struct {
	memory *channels.Memory
	buffer mem.Buffer
	err    error // that there is no memory for it
}

// codec is grpc-go's codec of messages in wire bytes.
type codec struct{}

// Name implements [encoding.CodecV2].
func (codec) Name() string { return connect.CodecNameProto }

// Marshal implements [encoding.CodecV2].
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	message, ok := v.(outbound)
	if !ok {
		return nil, fmt.Errorf("grpcgo: cannot send a %T", v)
	}
	return mem.BufferSlice{mem.Copy(message, mem.DefaultBufferPool())}, nil
}

// Unmarshal implements [encoding.CodecV2].
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	message, ok := v.(*inbound)
	if !ok {
		return fmt.Errorf("grpcgo: cannot receive a %T", v)
	}
	if data.Len() == 0 {
		message.buffer = mem.SliceBuffer(nil)
		return nil
	}
	bytes, err := message.memory.Take(data.Len())
	if err != nil {
		message.err = err
		return nil //nolint:nilerr // message has it: grpc-go would make it a text
	}
	data.CopyTo(*bytes)
	message.buffer = message.memory.Buffer(bytes)
	return nil
}
