// Package node assembles roles: it makes a gateway, an aggregate, projection, runner or control
// service out of its settings and a connection to NATS, makes it known to the platform, and runs
// it until its context ends. [Open] prepares one role for a process of its own; [Dev] runs all
// roles in one process over an embedded NATS server. Both assemble each role by the same
// functions. Flags and exit codes belong to cmd/headgate.
package node
