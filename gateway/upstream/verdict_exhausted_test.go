package upstream

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect/v2"

	"github.com/headgate/headgate/gateway/upstream/channels"
	"github.com/headgate/headgate/internal/descriptors"
)

func TestLocalError_TooManyOpenFiles(t *testing.T) {
	dial := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("socket", syscall.EMFILE)}
	err := localError(t.Context(), &channels.BrokenError{Unreached: true, Cause: dial})
	var verdict *connect.Error
	if !errors.As(err, &verdict) || verdict.Code() != connect.CodeUnavailable ||
		!strings.Contains(verdict.Message(), "too many open files") || !descriptors.Exhausted(err) || !Unreached(err) {
		t.Errorf("%v", err)
	}
}
