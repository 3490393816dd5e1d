package fleet

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/natsclient"
)

// foreignSubject is the prefix of the subjects of announcements of foreign nodes: nodes of services that are not the
// platform's. No stream stores these messages: the NATS server sends the acknowledgement of a stored message to any
// reply subject, so that the user of a foreign node could make it write to any stream.
const foreignSubject = "nodes."

// ForeignNodes matches the subjects of all foreign nodes' announcements.
const ForeignNodes = foreignSubject + ">"

// maxForeign bounds the foreign nodes that a follower knows.
const maxForeign = 1024

// ForeignSubject returns the subject of the announcements of a foreign node.
func ForeignSubject(kind contextkit.Kind, id string) string {
	return foreignSubject + NodeKey(kind, id)
}

// publishForeign publishes the announcement of a foreign node, or its deregistration.
func publishForeign(ctx context.Context, js jetstream.JetStream, node Node, msg *nats.Msg) error {
	msg.Subject = ForeignSubject(node.Kind, node.ID)
	if err := contextkit.InjectNATS(ctx, msg.Header); err != nil {
		return fmt.Errorf("fleet: announce %s: %w", node.ID, err)
	}
	return js.Conn().PublishMsg(msg)
}

// storesAnnouncement reports whether a node's announcements are stored in the bucket. The announcements of foreign
// nodes are only stored if the connection has no NATS user, for gateways of the previous release.
func storesAnnouncement(js jetstream.JetStream, kind contextkit.Kind) bool {
	return kind.Platform() || !natsclient.Identified(js.Conn())
}

// recordForeign records a message that a foreign node has published.
func (s *following) recordForeign(msg *nats.Msg) {
	key := strings.TrimPrefix(msg.Subject, foreignSubject)
	if kind, _, _ := strings.Cut(key, "."); contextkit.Kind(kind).Platform() {
		return // the platform's nodes use the bucket
	}
	s.record(key, msg.Data, 0, msg.Header.Get("KV-Operation") != "")
}

// foreignFull reports whether no further foreign node is recorded.
func (s *following) foreignFull() bool {
	count := 0
	for _, known := range s.known {
		if !known.node.Kind.Platform() {
			count++
		}
	}
	return count >= maxForeign
}
