package channels

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed is the cause of the error of a call on a closed channel.
	ErrClosed = errors.New("upstream: the channel is closed")
	// ErrTooLarge is the error of a message or header list of the peer beyond the bound.
	ErrTooLarge = errors.New("upstream: the answer is too large")
	// ErrHeadersTooLarge is the error of a call whose headers exceed the peer's bound.
	ErrHeadersTooLarge = errors.New("upstream: the headers are larger than the peer accepts")
	// ErrCompressed is the error of a compressed message, which no call requests.
	ErrCompressed = errors.New("upstream: the message is compressed with an encoding that was not offered")
)

// MeterError is the error of a message for which the call's [Meter] reserved no memory. The stream
// was reset; the connection continues.
type MeterError struct{ Cause error }

// Error implements error.
func (e *MeterError) Error() string {
	return fmt.Sprintf("upstream: no memory for the answer: %v", e.Cause)
}

// Unwrap returns the meter's error.
func (e *MeterError) Unwrap() error { return e.Cause }

// BrokenError is the error of a call that ended without its peer's verdict: no connection could be
// established, the connection was lost, the peer reset the stream, or it violated the protocol.
type BrokenError struct {
	// Unreached: no connection to the peer could be established.
	Unreached bool
	// Refused: the peer reported that it has not processed the call, which may be sent again in any
	// case (RFC 9113 §8.7). It is not set if the client has sent the call again itself.
	Refused bool
	// Reset: the peer reset the stream, with Code (RFC 9113 §7).
	Reset bool
	Code  uint32
	// Malformed: the peer's answer violates the protocol.
	Malformed bool
	Cause     error
}

// Error implements error.
func (e *BrokenError) Error() string { return fmt.Sprintf("upstream: the call broke off: %v", e.Cause) }

// Unwrap returns the cause.
func (e *BrokenError) Unwrap() error { return e.Cause }
