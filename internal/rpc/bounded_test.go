package rpc_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/rs/zerolog"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"github.com/headgate/headgate/internal/rpc"
)

func TestBounded_MessageAndDetailsAreCut(t *testing.T) {
	cause := errors.New("cause")
	for name, piece := range map[string]string{"ascii": "a", "quotes": `"`, "control": "\x01", "runes": "世"} {
		huge := strings.Repeat(piece, 95<<10/len(piece))
		bad := &errdetails.BadRequest{}
		for i := range 500 {
			bad.FieldViolations = append(bad.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: fmt.Sprint("f", i), Description: huge})
		}
		err := rpc.WithDetails(connect.NewError(connect.CodePermissionDenied, huge).WithCause(cause),
			rpc.Reason("MISSING_RIGHT", "right", huge, huge, "key"), bad)
		err = err.WithDetail(&connect.ErrorDetail{Type: "not.Known", Value: []byte(huge)})
		bounded, _ := errors.AsType[*connect.Error](rpc.Bounded(fmt.Errorf("wrapped: %w", err)))
		if bounded.Code() != connect.CodePermissionDenied || !errors.Is(bounded, cause) ||
			!strings.HasSuffix(bounded.Message(), "bytes)") {
			t.Errorf("%s: %v", name, bounded)
		}
		size := len(bounded.Message())
		for _, detail := range bounded.Details() {
			size += len(detail.Value)
		}
		if size > 4<<10 || len(bounded.Details()) != 2 {
			t.Errorf("%s: %d bytes, %d details, want 4 KiB at most and the two that are known", name, size,
				len(bounded.Details()))
		}
		first, _ := connectproto.UnmarshalErrorDetail(bounded.Details()[0])
		second, _ := connectproto.UnmarshalErrorDetail(bounded.Details()[1])
		info, _ := first.(*errdetails.ErrorInfo)
		violations, _ := second.(*errdetails.BadRequest)
		if info.GetReason() != "MISSING_RIGHT" || info.GetDomain() != rpc.ErrorDomain ||
			len(violations.GetFieldViolations()) == 0 || violations.GetFieldViolations()[0].GetField() != "f0" {
			t.Errorf("%s: %v, %v", name, info, violations)
		}
	}
}

func TestBounded_LeavesOthersAsTheyAre(t *testing.T) {
	small := rpc.WithDetails(connect.NewError(connect.CodeUnavailable, "no node is ready"), rpc.Reason("NO_NODE"))
	for _, err := range []error{
		nil, errors.New(strings.Repeat("x", 1<<20)), small, fmt.Errorf("wrapped: %w", small),
		connect.NewError(connect.CodeInternal, strings.Repeat("x", 1<<20)).WithRemote(),
	} {
		if got := rpc.Bounded(err); got != err { //nolint:errorlint // the same one
			t.Errorf("%.40v becomes %.40v", err, got)
		}
	}
}

func TestLog_ErrorsAreBounded(t *testing.T) {
	var out bytes.Buffer
	log := zerolog.New(&out)
	log.Error().Err(errors.New(strings.Repeat("\x01", 95<<10))).AnErr("cause", nil).Msg("call")
	var line struct{ Error, Message string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line.Message != "call" ||
		!strings.HasSuffix(line.Error, "bytes)") {
		t.Errorf("%v, %.100s", err, out.String())
	}
	if out.Len() > 9<<10 {
		t.Errorf("the line has %d bytes", out.Len())
	}
}

// A detail of a type that this process does not know cannot be cut: it stays if it is within
// the bounds of details, and is left out if not.
func TestBounded_DetailOfAnUnknownTypeStaysWholeOrIsLeftOut(t *testing.T) {
	for size, want := range map[int]int{100: 1, 2000: 1, 64 << 10: 0} {
		detail := &connect.ErrorDetail{Type: "foreign.v1.Reason", Value: make([]byte, size)}
		err := rpc.Bounded(connect.NewError(connect.CodeInternal, "the node failed").WithDetail(detail))
		bounded, _ := errors.AsType[*connect.Error](err)
		if bounded == nil || len(bounded.Details()) != want || want == 1 && len(bounded.Details()[0].Value) != size {
			t.Errorf("%d bytes: %v, want %d details", size, err, want)
		}
	}
}
