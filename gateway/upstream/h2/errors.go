package h2

import "errors"

// errDraining is the error of a call that must use another connection.
var errDraining = errors.New("h2: the connection accepts no further calls")

// errPeerClosed is the error of a connection that the peer closed without a GOAWAY.
var errPeerClosed = errors.New("the peer closed the connection")

// errNoStatus is the error of a stream that the peer ended without trailers.
var errNoStatus = errors.New("the peer ended the stream without trailers")
