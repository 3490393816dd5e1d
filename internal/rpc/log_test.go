package rpc_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/rpc"
)

// TestLog_NothingBreaksOutOfALine has every byte in every id that a client may choose.
func TestLog_NothingBreaksOutOfALine(t *testing.T) {
	for b := range 256 {
		id := "a" + string([]byte{byte(b)}) + "b"
		rc, _ := contextkit.Extract(http.Header{
			"X-Tenant-Id": {id}, "X-Correlation-Id": {id}, "X-Request-Id": {id}, "Trace-Id": {id}, "Traceparent": {id},
		}) // with new ids in the place of ids that cannot be
		var line bytes.Buffer
		log := zerolog.New(&line)
		rpc.Identify(log.Info(), &rc).Msg("call")
		var said struct {
			Correlation string `json:"correlation_id"`
			Trace       string `json:"trace_id"`
			Request     string `json:"request_id"`
		}
		if err := json.Unmarshal(line.Bytes(), &said); err != nil {
			t.Fatalf("byte %#x: %v: %q", b, err, line.String())
		}
		if said.Correlation != rc.CorrelationID || said.Request != rc.RequestID || said.Trace != rc.TraceID.String() {
			t.Errorf("byte %#x: the line has %+v for %+v", b, said, rc)
		}
	}
}

func TestLog_MillisecondsHaveMicroseconds(t *testing.T) {
	for took, want := range map[time.Duration]string{
		0: "0.000", 999 * time.Nanosecond: "0.000", time.Microsecond: "0.001", 1234 * time.Microsecond: "1.234",
		10 * time.Millisecond: "10.000", time.Hour + 70*time.Microsecond: "3600000.070",
	} {
		var line bytes.Buffer
		log := zerolog.New(&line)
		rpc.Took(log.Info(), took).Msg("call")
		if got, want := line.String(), fmt.Sprintf(
			"{\"level\":\"info\",\"ms\":%s,\"message\":\"call\"}\n", want,
		); got != want {
			t.Errorf("%v is written as %s, want %s", took, got, want)
		}
	}
}
