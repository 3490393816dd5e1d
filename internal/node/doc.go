// Package node assembles roles: it creates a gateway, an aggregate, projection, runner or control service from its
// settings and a connection to NATS, announces it to the platform, and runs it until its context ends. [Open]
// prepares one role in a separate process; [Dev] runs all roles in one process over an embedded NATS server. Both
// assemble each role with the same functions. Flags and exit codes belong to cmd/headgate.
package node
