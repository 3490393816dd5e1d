// Package channels has what the clients of calls to nodes have in common: the configuration of a channel to one peer,
// the beginning of a call on it, the memory of its messages, and the errors of calls that end without their peer's
// verdict. The clients are [github.com/headgate/headgate/gateway/upstream/h2], the fast path, and
// [github.com/headgate/headgate/gateway/upstream/grpcgo], the plain one: the tests of h2 run over both.
package channels
