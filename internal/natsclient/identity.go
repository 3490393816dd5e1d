package natsclient

import "github.com/nats-io/nats.go"

// Identified reports whether a connection authenticates as a NATS user, by an nkey. The permissions
// of such users bind announcements to the kind and id of the node, and another user sets up streams.
func Identified(conn *nats.Conn) bool { return conn.Opts.Nkey != "" }
