package chassis_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/headgate/headgate/chassis"
	"github.com/rs/zerolog"
)

func TestALineSaysMillisecondsToTheMicrosecond(t *testing.T) {
	for took, want := range map[time.Duration]string{
		0: "0.000", 999 * time.Nanosecond: "0.000", time.Microsecond: "0.001", 1234 * time.Microsecond: "1.234",
		10 * time.Millisecond: "10.000", time.Hour + 70*time.Microsecond: "3600000.070",
	} {
		var line bytes.Buffer
		log := zerolog.New(&line)
		chassis.Took(log.Info(), took).Msg("call")
		if got, want := line.String(), fmt.Sprintf("{\"level\":\"info\",\"ms\":%s,\"message\":\"call\"}\n", want); got != want {
			t.Errorf("%v is written as %s, want %s", took, got, want)
		}
	}
}
