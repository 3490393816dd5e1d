package grpcmeta

import (
	"context"
	"strings"
	"sync"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/internal/excerpt"
)

// Header writes the request headers of a call, those of the contract among them. ctx is
// the call's.
type Header interface {
	WriteHeader(ctx context.Context, to *Fields) error
}

// Of returns headers that are there.
func Of(header *connect.Header) Header { return written{header} }

type written struct{ header *connect.Header }

// WriteHeader implements [Header].
func (w written) WriteHeader(_ context.Context, to *Fields) error {
	for key, values := range w.header.All() {
		to.Add(key, values...)
	}
	return nil
}

// Fields are headers as they are sent: names in lower case, one field per binary value,
// without padding. Headers of the transport are left out.
type Fields struct {
	list   []hpack.HeaderField
	bad    string // the name of the first header that cannot be sent
	reason string // why
}

// lists are used again.
var lists = sync.Pool{New: func() any { return new(Fields) }}

// Write returns the fields of a call's headers, to be freed. Errors are header's, and
// INVALID_ARGUMENT, which names one that HTTP/2 and gRPC do not let through.
func Write(ctx context.Context, header Header) (*Fields, error) {
	f, _ := lists.Get().(*Fields)
	err := header.WriteHeader(ctx, f)
	if err == nil && f.bad != "" {
		err = Refuse(f.bad, f.reason)
	}
	if err != nil {
		f.Free()
		return nil, err
	}
	return f, nil
}

// Refuse returns the error, INVALID_ARGUMENT, for a header that cannot be sent.
func Refuse(name, reason string) *connect.Error {
	shown := excerpt.Text(strings.ToLower(name), excerpt.Name)
	return connect.Errorf(connect.CodeInvalidArgument, "the header %q cannot be sent: %s", shown, reason)
}

// Free releases the fields, which must not be used afterwards.
func (f *Fields) Free() {
	clear(f.list)
	f.list, f.bad, f.reason = f.list[:0], "", ""
	lists.Put(f)
}

// Add adds a header, whose name is in canonical form.
func (f *Fields) Add(canonical string, values ...string) {
	name, usual := sent.of(canonical)
	if name == "" {
		return
	}
	if !usual {
		if reason := Invalid(name, values); reason != "" {
			f.refuse(name, reason)
			return
		}
		if isBinary(name) {
			for _, value := range values {
				for part := range strings.SplitSeq(value, ",") {
					f.list = append(f.list, hpack.HeaderField{Name: name, Value: unpadded(part)})
				}
			}
			return
		}
	}
	for _, value := range values {
		f.SetField(name, value)
	}
}

// Set implements [contextkit.Writer] for headers that are not there yet.
func (f *Fields) Set(canonical, value string) { f.Add(canonical, value) }

// SetField implements [contextkit.Fields].
func (f *Fields) SetField(name, value string) {
	if invisible(value) >= 0 {
		f.refuse(name, Invalid(name, []string{value}))
		return
	}
	f.list = append(f.list, hpack.HeaderField{Name: name, Value: value})
}

// refuse records a header that cannot be sent.
func (f *Fields) refuse(name, reason string) {
	if f.bad == "" {
		f.bad, f.reason = name, reason
	}
}

// List returns the fields.
func (f *Fields) List() []hpack.HeaderField { return f.list }

// Into adds the fields to headers, as the callee reads them.
func (f *Fields) Into(header *connect.Header) {
	values := make([]string, len(f.list)) // all in one place
	for i, field := range f.list {
		values[i] = field.Value
		switch name, _ := received.of(field.Name); {
		case name == "":
		case header.Has(name):
			header.Add(name, field.Value)
		default:
			header.SetValues(name, values[i:i+1:i+1])
		}
	}
}
