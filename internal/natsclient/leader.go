package natsclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Any replica of a stream answers direct gets, and one that was disconnected may not have every
// acknowledged message yet. Whether there are further messages is therefore asked of the leader, by
// JetStream's older request for one message (NATS ADR-31 has both).

// Question names a message to a stream's leader: the last on a subject, or the first on one
// from a sequence on.
type Question struct {
	From    uint64 `json:"seq,omitempty"`
	Subject string `json:"next_by_subj,omitempty"`
	Last    string `json:"last_by_subj,omitempty"`
}

// AskLeader returns the message that a stream's leader has for a question, nil if it has
// none. Errors: of the request, and of the leader's answer. Where the files of the
// stream are damaged it may have a message and answer that it has none, see [CountMessages].
func AskLeader(
	ctx context.Context,
	js jetstream.JetStream,
	stream string,
	q Question,
) (*jetstream.RawStreamMsg, error) {
	answer, err := requestLeader(ctx, js, "$JS.API.STREAM.MSG.GET."+stream, q)
	if err != nil {
		return nil, fmt.Errorf("natsclient: ask the leader of %s: %w", stream, err)
	}
	return readAnswer(stream, answer)
}

// requestLeader returns a leader's answer to a request of the JetStream API.
func requestLeader(ctx context.Context, js jetstream.JetStream, subject string, content any) ([]byte, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	var reply *nats.Msg
	for {
		attempt, cancel := context.WithTimeout(ctx, SilentAfter) // it may have stopped, and another been elected
		reply, err = js.Conn().RequestWithContext(attempt, subject, text)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return reply.Data, nil
}

// CountMessages returns how many messages a stream's leader has on a subject without wildcards,
// by its index alone, unreadable messages included.
func CountMessages(ctx context.Context, js jetstream.JetStream, stream, subject string) (uint64, error) {
	text, err := requestLeader(ctx, js, "$JS.API.STREAM.INFO."+stream, struct {
		Subjects string `json:"subjects_filter"`
	}{subject})
	if err != nil {
		return 0, fmt.Errorf("natsclient: ask the leader of %s: %w", stream, err)
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
		State struct {
			Subjects map[string]uint64 `json:"subjects"`
		} `json:"state"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return 0, fmt.Errorf("natsclient: the leader of %s answers: %w", stream, err)
	}
	if answer.Error != nil {
		return 0, fmt.Errorf("natsclient: the leader of %s answers: %w", stream, answer.Error)
	}
	return answer.State.Subjects[subject], nil
}

// ElectionTimeout is Raft's shortest election timeout in NATS: a replica that has received a message of the leader
// within it does not start an election.
const ElectionTimeout = 4 * time.Second

// LeaderInContact reports whether the server that leads a stream has received messages from a majority of the stream's
// replicas, itself included, within [ElectionTimeout].
func LeaderInContact(ctx context.Context, js jetstream.JetStream, stream string) (bool, error) {
	text, err := requestLeader(ctx, js, "$JS.API.STREAM.INFO."+stream, struct{}{})
	if err != nil {
		return false, fmt.Errorf("natsclient: ask the leader of %s: %w", stream, err)
	}
	var answer struct {
		Error   *jetstream.APIError    `json:"error"`
		Cluster *jetstream.ClusterInfo `json:"cluster"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return false, fmt.Errorf("natsclient: the leader of %s answers: %w", stream, err)
	}
	if answer.Error != nil {
		return false, fmt.Errorf("natsclient: the leader of %s answers: %w", stream, answer.Error)
	}
	return InContact(answer.Cluster), nil
}

// InContact is [LeaderInContact] of a leader's description of its replicas.
func InContact(cluster *jetstream.ClusterInfo) bool {
	if cluster == nil {
		return true // the stream has one replica
	}
	inTouch := 1
	for _, peer := range cluster.Replicas {
		if peer.Active > 0 && peer.Active <= ElectionTimeout { // 0: never
			inTouch++
		}
	}
	return 2*inTouch > len(cluster.Replicas)+1
}

// leaderAnswer is a leader's answer.
type leaderAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Message struct {
		Subject  string    `json:"subject"`
		Sequence uint64    `json:"seq"`
		Header   []byte    `json:"hdrs"`
		Data     []byte    `json:"data"`
		Time     time.Time `json:"time"`
	} `json:"message"`
}

// readAnswer returns the message in a leader's answer, nil if it has none.
func readAnswer(stream string, text []byte) (*jetstream.RawStreamMsg, error) {
	var answer leaderAnswer
	err := json.Unmarshal(text, &answer)
	switch {
	case err != nil:
	case answer.Error != nil && answer.Error.ErrorCode == jetstream.JSErrCodeMessageNotFound:
		return nil, nil
	case answer.Error != nil:
		err = answer.Error
	}
	m := &answer.Message
	msg := &jetstream.RawStreamMsg{
		Subject:  m.Subject,
		Sequence: m.Sequence,
		Data:     m.Data,
		Time:     m.Time,
	}
	if err == nil && len(m.Header) > 0 {
		msg.Header, err = nats.DecodeHeadersMsg(m.Header)
	}
	if err != nil {
		return nil, fmt.Errorf("natsclient: the leader of %s answers: %w", stream, err)
	}
	return msg, nil
}
