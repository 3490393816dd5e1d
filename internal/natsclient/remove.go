package natsclient

import (
	"context"
	"encoding/json"

	"github.com/nats-io/nats.go/jetstream"
)

// RemoveMessage removes a message of a stream, if it is there. The client library's call hides
// the server's code.
func RemoveMessage(ctx context.Context, js jetstream.JetStream, stream string, sequence uint64) error {
	request, err := json.Marshal(map[string]any{"seq": sequence, "no_erase": true})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, AckTimeout)
	defer cancel()
	reply, err := js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.DELETE."+stream, request)
	if err != nil {
		return err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	err = json.Unmarshal(reply.Data, &answer)
	switch {
	case err != nil, answer.Error == nil:
		return err
	case answer.Error.ErrorCode == errCodeDeleteFailed && absent[answer.Error.Description]:
		return nil
	}
	return answer.Error
}

// errCodeDeleteFailed is the server's code for a message that it did not delete, and absent has
// its descriptions of a missing message.
const errCodeDeleteFailed jetstream.ErrorCode = 10057

var absent = map[string]bool{"no message found": true, "deleted message": true, "stream store EOF": true}
