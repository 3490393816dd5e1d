package natsclient

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Async returns a JetStream over js's connection for publishes without a waiting caller: most of
// them may be in flight. A publish that is not acknowledged within seconds fails
// ([jetstream.ErrAsyncPublishTimeout]): its server may have stopped while the connection, to
// another, stays. failed, if not nil, is called with the error of each publish that fails after it
// was sent; it must not block, nor publish.
func Async(js jetstream.JetStream, most int, failed func(error)) (jetstream.JetStream, error) {
	options := []jetstream.JetStreamOpt{
		jetstream.WithPublishAsyncMaxPending(most),
		jetstream.WithPublishAsyncTimeout(AckTimeout),
	}
	if failed != nil {
		options = append(
			options,
			jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { failed(err) }),
		)
	}
	async, err := jetstream.New(js.Conn(), options...)
	if err != nil {
		return nil, fmt.Errorf("natsclient: %w", err)
	}
	return async, nil
}

// Refusal is the reason that a message can never be stored, see [Refused]. Metrics have it as text.
type Refusal string

// Reasons that a message can never be stored.
const (
	RefusedTooLarge Refusal = "too_large"
	RefusedInvalid  Refusal = "invalid"
)

// JetStream's error codes: the message or its headers are larger than the stream accepts; the
// account has no room left, which an operator can change.
const (
	errCodeMessageTooLarge  jetstream.ErrorCode = 10054
	errCodeHeaderTooLarge   jetstream.ErrorCode = 10097
	ErrCodeAccountExhausted jetstream.ErrorCode = 10002
)

// Refused returns the reason that a message whose publishing failed with err can never be stored,
// and "" if a later attempt may succeed.
func Refused(err error) Refusal {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
		return RefusedTooLarge
	case errors.Is(err, nats.ErrBadSubject),
		errors.Is(err, nats.ErrInvalidMsg),
		errors.Is(err, nats.ErrHeadersNotSupported),
		errors.Is(err, jetstream.ErrInvalidSubject):
		return RefusedInvalid
	case !errors.As(err, &api):
		return ""
	case api.ErrorCode == errCodeMessageTooLarge, api.ErrorCode == errCodeHeaderTooLarge:
		return RefusedTooLarge
	case api.Code == http.StatusBadRequest && api.ErrorCode != ErrCodeAccountExhausted:
		return RefusedInvalid
	}
	return ""
}

// IsWrongSequence reports whether JetStream refused a message because the last message of its
// subject has another sequence than the message expects.
func IsWrongSequence(err error) bool {
	var api jetstream.JetStreamError
	if !errors.As(err, &api) || api.APIError() == nil {
		return false
	}
	code := api.APIError().ErrorCode
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == ErrCodeWrongLastSequenceConstant
}

// AckTimeout bounds the wait for an append's acknowledgement. It leaves enough of a call's usual
// time to read the outcome.
const AckTimeout = 4 * time.Second

// ErrNoAck reports that an acknowledgement has not arrived in time; its server may have stopped.
// The outcome is unknown.
var ErrNoAck = errors.New("JetStream did not acknowledge in time")

// ErrCodeWrongLastSequenceConstant is the server's second code for the same
// refusal, used when another batch on the subject is being committed.
const ErrCodeWrongLastSequenceConstant jetstream.ErrorCode = 10164

// ErrCodeNoStorage is the server's code for a stream that does not fit into its limit, given the
// reservations (MaxBytes) of all streams.
const ErrCodeNoStorage jetstream.ErrorCode = 10047
