package kv

import (
	"bytes"
	"encoding/json"
	"errors"
)

// errAnswer is the error of a value that the NATS server has published itself.
var errAnswer = errors.New(
	"the value is an answer of the NATS server that a client directed to this key: delete or replace it",
)

// answers begin the server's answers to publishers (acknowledgements, and errors) and to requests of
// the JetStream API. No value of a bucket begins so.
var answers = [][]byte{[]byte(`{"stream":"`), []byte(`{"error":{"code":`), []byte(`{"type":"io.nats.`)}

// isAnswer reports whether a value is an answer of the server. NATS does not check that a client may
// publish to the reply subject of its request: a user that may write a single key can have the
// server write its acknowledgement to any other key. As JSON it would be an empty value: of a
// suspended tenant, one that is not suspended.
func isAnswer(value []byte) bool {
	for _, answer := range answers {
		if bytes.HasPrefix(value, answer) {
			return true
		}
	}
	return false
}

// unmarshal reads a value. Error: it is not JSON, or an answer of the server.
func unmarshal(data []byte, value any) error {
	if isAnswer(data) {
		return errAnswer
	}
	return json.Unmarshal(data, value)
}
