package natsclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Away reports whether err is a temporary failure of NATS or JetStream: no server is reached, a
// server (or a proxy in front of it) refuses or closes the connection, a stream has no leader, or there is
// no room. It is false for an error that lasts until a setting or the program changes.
func Away(err error) bool {
	for _, known := range []error{
		nats.ErrNoServers, nats.ErrTimeout, nats.ErrConnectionClosed, nats.ErrDisconnected,
		nats.ErrConnectionReconnecting, nats.ErrReconnectBufExceeded,
		nats.ErrStaleConnection, nats.ErrNoResponders, nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked,
		nats.ErrMaxConnectionsExceeded,
		nats.ErrMaxAccountConnectionsExceeded, jetstream.ErrNoStreamResponse, jetstream.ErrServerShutdown,
		context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.Code >= http.StatusInternalServerError
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return false // the setting is no URL
	}
	_, ok := errors.AsType[net.Error](err)
	return ok
}
