package upstream

import (
	"errors"
	"strconv"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/gateway/upstream/channels"
)

const (
	// HeaderPushback is the trailer with which a node tells the gateway when to retry, or not to
	// retry. It is not forwarded to clients.
	HeaderPushback = "Grpc-Retry-Pushback-Ms"
	retryInfo      = "google.rpc.RetryInfo"
)

// Pushback returns the retry instruction of a node that refused a call with err: the delay, if the
// node asked for one, and whether the call may be attempted again. Sources: gRFC A6, "Pushback";
// google.rpc.RetryInfo.
func Pushback(info *connect.CallInfo, err error) (wait time.Duration, asked, again bool) {
	if text := info.ResponseTrailer().Get(HeaderPushback); text != "" {
		ms, err := strconv.ParseInt(text, 10, 32)
		if err != nil || ms < 0 {
			return 0, true, false
		}
		return time.Duration(ms) * time.Millisecond, true, true
	}
	var verdict *connect.Error
	if !errors.As(err, &verdict) || !verdict.IsRemote() {
		return 0, false, true
	}
	for _, detail := range verdict.Details() {
		var info errdetails.RetryInfo
		if detail.Type == retryInfo && proto.Unmarshal(detail.Value, &info) == nil {
			return info.GetRetryDelay().AsDuration(), true, true
		}
	}
	return 0, false, true
}

// Unreached reports whether no connection to the node could be established.
func Unreached(err error) bool {
	broken, ok := errors.AsType[*channels.BrokenError](err)
	return ok && broken.Unreached
}
