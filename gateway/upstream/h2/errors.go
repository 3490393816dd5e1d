package h2

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed says that the channel was closed.
	ErrClosed = errors.New("h2: the channel is closed")
	// ErrTooLarge says that a message of the peer's, or its headers, are larger than may be.
	ErrTooLarge = errors.New("h2: the answer is larger than may be")
	// ErrHeadersTooLarge says that the peer takes no headers as large as a call's.
	ErrHeadersTooLarge = errors.New("h2: the headers are larger than the peer takes")
	// ErrCompressed says that a message is compressed, which nobody has asked for.
	ErrCompressed = errors.New("h2: the message is compressed, in a way that was not offered")
)

// MeterError says that the call's [Meter] refused memory for a message of the answer. The
// stream was reset; the connection goes on.
type MeterError struct{ Cause error }

// Error implements error.
func (e *MeterError) Error() string { return fmt.Sprintf("h2: no memory for the answer: %v", e.Cause) }

// Unwrap returns the meter's error.
func (e *MeterError) Unwrap() error { return e.Cause }

// BrokenError says that a call ended without its peer's verdict: the peer could not be
// connected to, the connection broke, the peer reset the stream, or it broke the protocol.
type BrokenError struct {
	// Unreached says that the peer could not be connected to.
	Unreached bool
	// Refused says that the peer was connected to, and has reported that it has not begun
	// with the call: it may be sent again, whatever it is. Source: RFC 9113, section 8.7.
	Refused bool
	// Reset says that the peer reset the stream, with Code (RFC 9113, section 7).
	Reset bool
	Code  uint32
	// Malformed says that the peer's answer breaks the protocol.
	Malformed bool
	Cause     error
}

// Error implements error.
func (e *BrokenError) Error() string { return fmt.Sprintf("h2: the call broke off: %v", e.Cause) }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Cause }

// errElsewhere says that a connection takes no further calls; another one does.
var errElsewhere = errors.New("h2: the connection takes no further calls")

// errLeft says that a peer closed the connection, without a farewell.
var errLeft = errors.New("the peer closed the connection")

// errNoStatus says that a peer ended a stream without trailers.
var errNoStatus = errors.New("the peer ended the stream without trailers")
