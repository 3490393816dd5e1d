// Package fastpath selects the implementation of each fast path: a part of a library or of the runtime that Headgate
// replaces because it costs CPU time in every call. Each has the plain implementation beside it, with the same
// behaviour; a setting selects one of the two when the process is assembled.
//
// The fast path of calls to nodes is in gateway/upstream, that of deadlines in internal/lazydeadline; the others are in
// the folders below this package.
package fastpath

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/headgate/headgate/internal/config"
	"github.com/headgate/headgate/internal/fastpath/gctuning"
	"github.com/headgate/headgate/internal/fastpath/rawtcp"
	"github.com/headgate/headgate/internal/fastpath/stackgrow"
)

// Path is one of the two implementations of a part. The zero value is [Fast].
type Path string

// The implementations.
const (
	Fast  Path = "fast"
	Plain Path = "plain"
)

// IsPlain reports whether the plain implementation is selected.
func (p Path) IsPlain() bool { return p == Plain }

// Paths selects the implementation of each part. The zero value selects the fast ones.
type Paths struct {
	// Upstream is the client of calls to nodes: an own HTTP/2 client (ADR-0012), or grpc-go's.
	Upstream Path `yaml:"upstream"`
	// Sockets are read and written by raw system calls (ADR-0013), or by package net.
	Sockets Path `yaml:"sockets"`
	// Deadlines of calls take a timer and a channel when something waits for them (ADR-0024), or from the
	// start, as package context does.
	Deadlines Path `yaml:"deadlines"`
	// Stacks of HTTP/2 calls grow once (ADR-0020), or as the runtime decides.
	Stacks Path `yaml:"stacks"`
	// GC is how much a heap grows before a collection: by its size (ADR-0021), or by the runtime's default.
	GC Path `yaml:"gc"`
}

// AllPlain selects the plain implementation of every part.
func AllPlain() Paths {
	return Paths{
		Upstream:  Plain,
		Sockets:   Plain,
		Deadlines: Plain,
		Stacks:    Plain,
		GC:        Plain,
	}
}

// Choice is the implementation of one part, by the name of its setting.
type Choice struct {
	Part string
	Path Path
}

// Choices returns the implementation of each part.
func (p Paths) Choices() []Choice {
	choices := []Choice{
		{"upstream", p.Upstream},
		{"sockets", p.Sockets},
		{"deadlines", p.Deadlines},
		{"stacks", p.Stacks},
		{"gc", p.GC},
	}
	for i := range choices {
		if choices[i].Path == "" {
			choices[i].Path = Fast
		}
	}
	return choices
}

// String returns the choices as text, such as "upstream=fast sockets=plain".
func (p Paths) String() string {
	var parts []string
	for _, choice := range p.Choices() {
		parts = append(parts, fmt.Sprintf("%s=%s", choice.Part, choice.Path))
	}
	return strings.Join(parts, " ")
}

// Validate returns an error that names the invalid fields.
func (p Paths) Validate() error {
	var errs []error
	for _, choice := range p.Choices() {
		if choice.Path != Fast && choice.Path != Plain {
			errs = append(errs, config.Wrong(choice.Part, "is %q, want %s or %s", choice.Path, Fast, Plain))
		}
	}
	return errors.Join(errs...)
}

// Conn returns a connection like c, which must not be used itself afterwards, with the selected sockets.
func (p Paths) Conn(c net.Conn) net.Conn {
	if p.Sockets.IsPlain() {
		return c
	}
	return rawtcp.Conn(c)
}

// Listener returns a listener like l whose connections are those of [Paths.Conn].
func (p Paths) Listener(l net.Listener) net.Listener {
	if p.Sockets.IsPlain() {
		return l
	}
	return rawtcp.Listener(l)
}

// Handler returns a handler like next whose stack grows as selected.
func (p Paths) Handler(next http.Handler) http.Handler {
	if p.Stacks.IsPlain() {
		return next
	}
	return stackgrow.Handler(next)
}

// Collect applies the selected growth of the heap to the process until stop is called.
func (p Paths) Collect() (stop func()) {
	if p.GC.IsPlain() {
		return func() {}
	}
	return gctuning.Adapt()
}
