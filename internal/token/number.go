package token

import (
	"encoding/base64"
	"encoding/binary"
	"strconv"
)

const (
	sealedVersion = 2
	numberLength  = 1 + Overhead + 8
)

// Numbers formats and parses tokens of a number, such as the sequence at which a page of a
// stream ends. Version 1 is the number itself, in base 36, and is issued and accepted only while
// the gate knows a node that does not read sealed tokens. It may be used concurrently.
type Numbers struct {
	sealer *Sealer
	gate   *Gate
}

// NewNumbers returns the codec of a purpose under the secret that all nodes share. gate
// selects the version to issue; nil: the newest.
func NewNumbers(secret []byte, purpose string, gate *Gate) *Numbers {
	return &Numbers{sealer: NewSealer(secret, purpose), gate: gate}
}

// Format returns the token of a number. The scope binds tokens of version 2.
func (n *Numbers) Format(scope string, number uint64) string {
	if !n.gate.Sealed() {
		return strconv.FormatUint(number, 36)
	}
	out := append(make([]byte, 0, numberLength), sealedVersion)
	return base64.RawURLEncoding.EncodeToString(n.sealer.Seal(out, scope, binary.BigEndian.AppendUint64(nil, number)))
}

// Parse returns the number of a token. Error: [ErrForged].
func (n *Numbers) Parse(scope, text string) (uint64, error) {
	if base64.RawURLEncoding.EncodedLen(numberLength) == len(text) {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err != nil || raw[0] != sealedVersion {
			return 0, ErrForged
		}
		content, err := n.sealer.Open(scope, raw[1:])
		if err != nil {
			return 0, err
		}
		return binary.BigEndian.Uint64(content), nil
	}
	if n.gate.Sealed() {
		return 0, ErrForged
	}
	number, err := strconv.ParseUint(text, 36, 64)
	if err != nil {
		return 0, ErrForged
	}
	return number, nil
}
