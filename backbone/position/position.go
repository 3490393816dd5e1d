// Package position is the token that says how far a tenant's journal has been
// read or written: what Submit answers and Query waits for.
//
// Outside it is opaque. Inside it is versioned, signed and bound to the tenant
// and to the journal's epoch, so that a token of another tenant, of a wiped
// journal or of somebody's own making is told apart instead of waited for.
package position

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/headgate/headgate/contextkit"
)

// Errors of Parse.
var (
	// ErrInvalid: not a token of this platform, or of another tenant.
	ErrInvalid = errors.New("the position is not one that this platform gave to this tenant")
	// ErrEpoch: the journal that the token speaks of is no longer there.
	ErrEpoch = errors.New("the position is of a journal that was replaced since")
)

const (
	tokenVersion = 1
	macLength    = 12 // 96 bits: forging one takes 2^95 calls on average
	bodyLength   = 1 + 8 + 8
	tokenLength  = bodyLength + macLength
)

// Codec makes and reads positions. It may be used concurrently.
type Codec struct {
	key   []byte
	epoch int64
}

// NewCodec returns a codec for the journal of that epoch, under a key that all
// nodes share.
func NewCodec(key []byte, epoch int64) *Codec { return &Codec{key: key, epoch: epoch} }

// Format returns the token of a journal sequence.
func (c *Codec) Format(tenant contextkit.TenantID, sequence uint64) string {
	token := make([]byte, bodyLength, tokenLength)
	token[0] = tokenVersion
	binary.BigEndian.PutUint64(token[1:], uint64(c.epoch))
	binary.BigEndian.PutUint64(token[9:], sequence)
	return base64.RawURLEncoding.EncodeToString(append(token, c.mac(tenant, token)...))
}

// Parse returns the journal sequence of a token. Errors: [ErrInvalid],
// [ErrEpoch].
func (c *Codec) Parse(tenant contextkit.TenantID, token string) (uint64, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) != tokenLength || raw[0] != tokenVersion {
		return 0, ErrInvalid
	}
	body, mac := raw[:bodyLength], raw[bodyLength:]
	if !hmac.Equal(mac, c.mac(tenant, body)) {
		return 0, ErrInvalid
	}
	if int64(binary.BigEndian.Uint64(body[1:])) != c.epoch {
		return 0, ErrEpoch
	}
	return binary.BigEndian.Uint64(body[9:]), nil
}

func (c *Codec) mac(tenant contextkit.TenantID, body []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte("position\x00" + tenant.String() + "\x00"))
	h.Write(body)
	return h.Sum(nil)[:macLength]
}
