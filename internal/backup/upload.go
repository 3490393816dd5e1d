package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats-server/v2/server/archive"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// chunkBytes is the size of a chunk that is sent to the server, and of a block of the
	// stream in it. The server gives a restore up when it is busy with one chunk for five seconds:
	// one that syncs each message may store twenty per second, so chunks are small and not
	// compressed.
	chunkBytes = 32 << 10
	// chunkWait bounds the wait for a chunk's acknowledgement, and finishWait that for the
	// restored stream, which in a cluster is copied to its replicas.
	chunkWait, finishWait = 30 * time.Second, 10 * time.Minute
	// uploads bounds the attempts to upload a stream.
	uploads = 3
)

// restoreAnswer is an answer of NATS's restore API.
type restoreAnswer struct {
	Error          *jetstream.APIError `json:"error"`
	DeliverSubject string              `json:"deliver_subject"`
}

// uploadPatiently uploads a stream, and again if the server has given the restore up, as it does when
// nothing arrives for five seconds, or another server leads.
func (r *restoring) uploadPatiently(ctx context.Context, stream Stream, consumers []position) error {
	for attempt := 1; ; attempt++ {
		err := r.upload(ctx, stream, consumers)
		if !errors.Is(err, nats.ErrNoResponders) || attempt == uploads {
			return err
		}
		if err := r.js.DeleteStream(ctx, stream.Stream); err != nil && !errors.Is(err, jetstream.ErrStreamNotFound) {
			return fmt.Errorf("delete what is restored of it: %w", err)
		}
	}
}

// upload makes a stream of a file, by NATS's restore API in its format 2 (nats-server 2.15).
// consumers are made with it, at their positions.
func (r *restoring) upload(ctx context.Context, stream Stream, consumers []position) error {
	config := stream.Config
	config.Replicas = 1
	if r.target.Replicas > 1 && config.PersistMode != jetstream.AsyncPersistMode {
		config.Replicas = r.target.Replicas
	}
	state := jetstream.StreamState{
		Msgs:     stream.Messages,
		Bytes:    stream.Bytes,
		FirstSeq: stream.First,
		LastSeq:  stream.Next - 1,
	}
	if stream.Messages == 0 {
		state.FirstSeq = stream.Next
	}
	request, err := json.Marshal(struct {
		Config jetstream.StreamConfig `json:"config"`
		State  jetstream.StreamState  `json:"state"`
	}{config, state})
	if err != nil {
		return err
	}
	conn := r.js.Conn()
	var begun restoreAnswer
	if err := ask(ctx, conn, "$JS.API.STREAM.RESTORE."+stream.Stream, request, chunkWait, &begun); err != nil {
		return err
	}
	from, into := io.Pipe()
	go func() { into.CloseWithError(r.pack(into, stream, state, consumers)) }()
	defer func() { _ = from.Close() }() // ends pack
	chunk := make([]byte, min(chunkBytes, conn.MaxPayload()/2))
	for {
		n, err := io.ReadFull(from, chunk)
		if n > 0 {
			if err := ask(ctx, conn, begun.DeliverSubject, chunk[:n], chunkWait, nil); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	return ask(ctx, conn, begun.DeliverSubject, nil, finishWait, nil)
}

// ask sends a request and reads the answer, which may be empty, into out.
func ask(
	ctx context.Context, conn *nats.Conn, subject string, request []byte, wait time.Duration, out *restoreAnswer,
) error {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	reply, err := conn.RequestWithContext(ctx, subject, request)
	if err != nil {
		return fmt.Errorf("NATS does not answer: %w", err)
	}
	var answer restoreAnswer
	if len(reply.Data) > 0 {
		if err := json.Unmarshal(reply.Data, &answer); err != nil {
			return fmt.Errorf("NATS's answer: %w", err)
		}
	}
	if answer.Error != nil {
		return answer.Error
	}
	if out != nil {
		*out = answer
	}
	return nil
}

// pack writes the file of a stream as the server reads it: its state, consumers, messages.
func (r *restoring) pack(to io.Writer, stream Stream, state jetstream.StreamState, consumers []position) error {
	in, err := open(r.dir, stream.Name)
	if err != nil {
		return err
	}
	defer in.close()
	packed := s2.NewWriter(to, s2.WriterConcurrency(1), s2.WriterBlockSize(chunkBytes), s2.WriterUncompressed())
	out := archive.NewWriter(packed)
	now := time.Now().UnixNano()
	entry := func(name string, value any) error {
		text, err := json.Marshal(value)
		if err != nil {
			return err
		}
		return errors.Join(out.WriteHeader(&archive.Header{Name: name, Timestamp: now, PayloadSize: int64(len(text))}),
			writeAll(out, text))
	}
	state.Consumers = len(consumers)
	if err := entry("state.json", state); err != nil {
		return err
	}
	for _, c := range consumers {
		at := server.SequencePair{Consumer: c.Consumer, Stream: c.Stream}
		if err := entry("consumers/"+c.Config.Durable, struct {
			Config jetstream.ConsumerConfig `json:"config"`
			State  server.ConsumerState     `json:"state"`
		}{c.Config, server.ConsumerState{Delivered: at, AckFloor: at}}); err != nil {
			return err
		}
	}
	for count := uint64(0); ; count++ {
		m, err := in.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := writeMessage(out, m); err != nil {
			return err
		}
		if count%every == 0 {
			r.options.progress(Progress{
				Step:   "restore",
				Stream: stream.Stream,
				Done:   count,
				Total:  stream.Messages,
			})
		}
	}
	r.options.progress(Progress{
		Step:   "restore",
		Stream: stream.Stream,
		Done:   stream.Messages,
		Total:  stream.Messages,
	})
	return errors.Join(out.WriteHeader(&archive.Header{}), out.Close(), packed.Close())
}
