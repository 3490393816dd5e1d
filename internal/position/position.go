// Package position encodes consistency tokens: positions in a tenant's journal, which Submit returns
// and for which Query waits (read your writes).
//
// A token is opaque to clients. It is versioned, authenticated and bound to the tenant and to the
// journal's epoch, so that a token of another tenant, of a deleted journal or made by a client is
// rejected instead of waited for.
//
// The journal is shared by all tenants, so a sequence tells how many events they all
// have. For that reason version 2 is encrypted. Version 1 is not, stays readable, and is
// issued only while a node of the platform does not read version 2. Version 3 is a position of
// a view: it also has a fingerprint of the view's definition, and is read wherever version 2 is.
package position

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"

	"github.com/headgate/headgate/contextkit"
	"github.com/headgate/headgate/internal/token"
)

// Errors of Parse.
var (
	// ErrInvalid: not a token of this platform, or of another tenant.
	ErrInvalid = errors.New("the position is not one that this platform gave to this tenant")
	// ErrEpoch: the journal that the token speaks of is no longer there.
	ErrEpoch = errors.New("the position is of a journal that was replaced since")
)

const (
	signedVersion = 1
	sealedVersion = 2
	viewVersion   = 3
	macLength     = 12 // 96 bits: a forgery takes 2^95 calls on average
	contentLength = 8 + 8
	signedLength  = 1 + contentLength + macLength
	sealedLength  = 1 + token.Overhead + contentLength
	viewLength    = sealedLength + 8 + 8
)

// Codec makes and reads positions. It may be used concurrently.
type Codec struct {
	key    []byte // of version 1
	sealer *token.Sealer
	gate   *token.Gate
	epoch  func() int64
}

// NewCodec returns a codec for the journal whose epoch the function returns, under a key that all
// nodes share. gate selects the version to issue; nil: the newest.
func NewCodec(key []byte, epoch func() int64, gate *token.Gate) *Codec {
	return &Codec{
		key:    key,
		sealer: token.NewSealer(key, "position"),
		gate:   gate,
		epoch:  epoch,
	}
}

// Of returns a codec for positions of one epoch, regardless of the journal's epoch: rows that were made
// from a lost journal are still read when the journal has a new epoch.
func (c *Codec) Of(epoch int64) *Codec {
	of := *c
	of.epoch = func() int64 { return epoch }
	return &of
}

// Format returns the token of a journal sequence. Within a version, equal sequences of a
// tenant have equal tokens.
func (c *Codec) Format(tenant contextkit.TenantID, sequence uint64) string {
	var content [contentLength]byte
	binary.BigEndian.PutUint64(content[:], uint64(c.epoch()))
	binary.BigEndian.PutUint64(content[8:], sequence)
	if c.gate.Sealed() {
		out := append(make([]byte, 0, sealedLength), sealedVersion)
		return base64.RawURLEncoding.EncodeToString(c.sealer.Seal(out, tenant.String(), content[:]))
	}
	out := append(make([]byte, 0, signedLength), signedVersion)
	out = append(out, content[:]...)
	return base64.RawURLEncoding.EncodeToString(append(out, c.mac(tenant, out)...))
}

// View describes the view that the holder of a position knows.
type View struct {
	// Fingerprint identifies the view's definition.
	Fingerprint uint64
	// Filter identifies a node's record of the rows of a filter; 0: none.
	Filter uint64
}

// FormatView returns the token of a journal sequence up to which a client knows a view. While a
// node does not read version 3, the token has no view.
func (c *Codec) FormatView(tenant contextkit.TenantID, sequence uint64, view View) string {
	if !c.gate.Views() {
		return c.Format(tenant, sequence)
	}
	content := make([]byte, 0, contentLength+16)
	for _, number := range []uint64{uint64(c.epoch()), sequence, view.Fingerprint, view.Filter} {
		content = binary.BigEndian.AppendUint64(content, number)
	}
	out := append(make([]byte, 0, viewLength), viewVersion)
	return base64.RawURLEncoding.EncodeToString(c.sealer.Seal(out, tenant.String(), content))
}

// Parse returns the journal sequence of a token, of any version. Errors:
// [ErrInvalid], [ErrEpoch].
func (c *Codec) Parse(tenant contextkit.TenantID, text string) (uint64, error) {
	sequence, _, err := c.ParseView(tenant, text)
	return sequence, err
}

// ParseView is Parse, and also returns the token's view; nil: it has none.
func (c *Codec) ParseView(tenant contextkit.TenantID, text string) (sequence uint64, view *View, err error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return 0, nil, ErrInvalid
	}
	var content []byte
	switch {
	case len(raw) == signedLength && raw[0] == signedVersion:
		body, mac := raw[:1+contentLength], raw[1+contentLength:]
		if !hmac.Equal(mac, c.mac(tenant, body)) {
			return 0, nil, ErrInvalid
		}
		content = body[1:]
	case len(raw) == sealedLength && raw[0] == sealedVersion, len(raw) == viewLength && raw[0] == viewVersion:
		if content, err = c.sealer.Open(tenant.String(), raw[1:]); err != nil {
			return 0, nil, ErrInvalid
		}
	default:
		return 0, nil, ErrInvalid
	}
	if int64(binary.BigEndian.Uint64(content)) != c.epoch() {
		return 0, nil, ErrEpoch
	}
	if len(content) > contentLength {
		view = &View{
			Fingerprint: binary.BigEndian.Uint64(content[contentLength:]),
			Filter:      binary.BigEndian.Uint64(content[contentLength+8:]),
		}
	}
	return binary.BigEndian.Uint64(content[8:]), view, nil
}

func (c *Codec) mac(tenant contextkit.TenantID, body []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write([]byte("position\x00" + tenant.String() + "\x00"))
	h.Write(body)
	return h.Sum(nil)[:macLength]
}
