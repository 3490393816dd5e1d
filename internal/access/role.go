// Package access defines what each role may do on the NATS servers: the subjects that its user may
// publish and subscribe to, in one table, and the server configuration that is made of it.
//
// A user is one node's, or one kind's. It reads the streams and buckets that its role reads, writes
// the subjects that its role writes, announces its own kind and id, and receives answers under a
// separate inbox prefix. Streams and buckets are created and changed by [Setup] alone.
//
// NATS checks permissions by subject. What it does not check: the content of messages, the names of
// consumers of a stream that a user may read, and the reply subject of a request, to which the
// server publishes the answer.
//
// Sources: https://docs.nats.io/running-a-nats-service/configuration/securing_nats/authorization,
// NATS ADR-8 (buckets), ADR-31 (direct get), ADR-1 (JetStream API subjects).
package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/fleet"
)

// Role names what a NATS user is for.
type Role string

// Roles of NATS users.
const (
	Gateway    = Role(contextkit.KindGateway)
	Aggregate  = Role(contextkit.KindAggregate)
	Projection = Role(contextkit.KindProjection)
	Runner     = Role(contextkit.KindRunner)
	Control    = Role(contextkit.KindControl)
	// Foreign is the role of nodes of any other kind: services that are not the platform's, which
	// announce themselves.
	Foreign Role = "foreign"
	// Setup creates and changes streams and buckets, restores backups and accepts losses.
	Setup Role = "setup"
	// Backup reads everything.
	Backup Role = "backup"
)

// RoleOf returns the role of nodes of a kind.
func RoleOf(kind contextkit.Kind) Role {
	if kind.Platform() {
		return Role(kind)
	}
	return Foreign
}

// AnyID is the id of a user that may announce all ids of its kind.
const AnyID = "*"

// User is a NATS user: a node's, or that of [Setup] or [Backup].
type User struct {
	Role Role
	// Kind and ID are the node's; ID may be [AnyID]. Both are empty for Setup and Backup.
	Kind contextkit.Kind
	ID   string
	// Key is the public nkey.
	Key string
}

// Name returns the name of the user: the id of its node, its kind if it may have any id, or its
// role.
func (u User) Name() string {
	switch {
	case u.Kind == "":
		return string(u.Role)
	case u.ID == AnyID:
		return u.Kind.String()
	}
	return u.ID
}

// InboxPrefix returns the prefix of the inboxes of the user with a public nkey. No other user may
// subscribe to it.
func InboxPrefix(key string) string { return "_INBOX_" + key }

// Permissions are the subjects that a user may use; all others are refused.
type Permissions struct {
	Publish, Subscribe []string
}

// Of returns a user's permissions. Error: the kind or id is not valid.
func Of(u User) (Permissions, error) {
	p := Permissions{Subscribe: []string{InboxPrefix(u.Key) + ".>"}}
	id := u.ID
	if u.Kind != "" {
		check := id
		if id == AnyID {
			id, check = ">", "any"
		}
		if err := fleet.CheckNode(u.Kind, check); err != nil {
			return Permissions{}, fmt.Errorf("access: %w", err)
		}
	}
	rights, ok := table[u.Role]
	if !ok {
		return Permissions{}, fmt.Errorf("access: there is no role %q", u.Role)
	}
	own := strings.NewReplacer("{kind}", u.Kind.String(), "{id}", id)
	for _, subject := range rights.subjects() {
		p.Publish = append(p.Publish, own.Replace(subject))
	}
	p.Subscribe = append(p.Subscribe, rights.subscribes...)
	slices.Sort(p.Publish)
	p.Publish = slices.Compact(p.Publish)
	return p, nil
}
