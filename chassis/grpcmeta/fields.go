package grpcmeta

import (
	"context"

	"connectrpc.com/connect/v2"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2/hpack"
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

// Fields are headers as they travel: names in lower case, binary values encoded. What
// belongs to a transport is left out. The zero value has none.
type Fields struct {
	list []hpack.HeaderField
	bad  string // the name of the first that cannot travel
}

// Add adds a header, whose name is in canonical form.
func (f *Fields) Add(canonical string, values ...string) {
	name, usual := sent.of(canonical)
	if name == "" {
		return
	}
	for _, value := range values {
		if !usual && !httpguts.ValidHeaderFieldName(name) || !visible(value) {
			if f.bad == "" {
				f.bad = name
			}
			continue
		}
		f.list = append(f.list, hpack.HeaderField{Name: name, Value: value})
	}
}

// Set implements [contextkit.Writer] for headers that are not there yet.
func (f *Fields) Set(canonical, value string) { f.Add(canonical, value) }

// List returns the fields. The error, INVALID_ARGUMENT, names one that HTTP/2 and gRPC do
// not let through.
func (f *Fields) List() ([]hpack.HeaderField, error) {
	if f.bad != "" {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "the header %q cannot be sent: its name must be a token, and its value of visible ASCII", f.bad)
	}
	return f.list, nil
}

// Into adds the fields to headers, as whoever is called finds them. Errors are those of
// List.
func (f *Fields) Into(header *connect.Header) error {
	list, err := f.List()
	if err != nil {
		return err
	}
	values := make([]string, len(list)) // all in one place
	for i, field := range list {
		values[i] = field.Value
		switch name, _ := received.of(field.Name); {
		case name == "":
		case header.Has(name):
			header.Add(name, field.Value)
		default:
			header.SetValues(name, values[i:i+1:i+1])
		}
	}
	return nil
}

// Reset forgets all fields, and keeps the place.
func (f *Fields) Reset() {
	clear(f.list)
	f.list, f.bad = f.list[:0], ""
}
