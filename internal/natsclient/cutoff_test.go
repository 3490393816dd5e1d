package natsclient_test

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/internal/natsclient"
	"github.com/headgate/headgate/internal/natstest"
)

// An answer that ends before its first message is neither an error nor the end of the stream: the
// request is repeated.
func TestReadPart_AnAnswerWithoutMessagesIsRequestedAgain(t *testing.T) {
	js := natstest.Start(t)
	const stream, subject = "CUTOFF", "cutoff.a"
	var requests atomic.Int64
	served, err := js.Conn().Subscribe("$JS.API.DIRECT.GET."+stream, func(request *nats.Msg) {
		respond := func(data string, pairs ...string) {
			answer := nats.NewMsg(request.Reply)
			for n := 0; n < len(pairs); n += 2 {
				answer.Header.Set(pairs[n], pairs[n+1])
			}
			answer.Data = []byte(data)
			if err := request.RespondMsg(answer); err != nil {
				t.Error(err)
			}
		}
		const sequence = 7
		switch requests.Add(1) {
		case 1:
		case 2:
			respond(
				"a message",
				jetstream.StreamHeader,
				stream,
				jetstream.SubjectHeader,
				subject,
				jetstream.SequenceHeader,
				strconv.Itoa(sequence),
				jetstream.TimeStampHeaer,
				time.Now().UTC().Format(time.RFC3339Nano),
				"Nats-Num-Pending",
				"0",
			)
		default:
			respond("", "Status", "404", "Description", "Message Not Found")
			return
		}
		respond(
			"",
			"Status",
			"204",
			"Description",
			"EOB",
			"Nats-Num-Pending",
			"0",
			"Nats-Last-Sequence",
			strconv.Itoa(sequence),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = served.Unsubscribe() }()
	var got []uint64
	if err := natsclient.ReadPart(t.Context(), js, stream, subject, 1, 10, func(msg *jetstream.RawStreamMsg) error {
		got = append(got, msg.Sequence)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != 7 || requests.Load() != 3 {
		t.Errorf("sequences %v after %d requests, want 7 after 3", got, requests.Load())
	}
}
