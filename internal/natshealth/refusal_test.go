package natshealth_test

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natshealth"
	"github.com/headgate/headgate/internal/streams"
)

// A fault without a name is reported with JetStream's error code, and without its text.
func TestStorageError_NamesTheCodeOfOtherFaults(t *testing.T) {
	err := &natshealth.StorageError{
		Stream:  streams.Events,
		Refusal: natshealth.RefusalOther,
		Cause:   &jetstream.APIError{Code: 500, ErrorCode: 10049, Description: "a path of the server"},
	}
	if got := err.Error(); !strings.Contains(got, "reports the error 10049") || strings.Contains(got, "path") {
		t.Error(got)
	}
}
