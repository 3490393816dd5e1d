// Package token seals what opaque tokens (positions, page tokens) hold, so that their
// bearer learns nothing from them.
//
// Sealing is deterministic and authenticated, as RFC 5297 (SIV) does it: the synthetic
// initialization vector is an HMAC-SHA-256 of the scope and the content, cut to 128 bits; the
// content is encrypted by AES-256-CTR under that vector. Equal contents of one scope are equal
// tokens, which clients may compare. Tokens of different contents or scopes reveal nothing but
// their lengths. Both keys are derived from the platform's secret by HKDF (RFC 5869), one pair
// per purpose, so that a token of one purpose cannot be used for another.
package token

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sync/atomic"
)

const (
	// Newest is the newest version of tokens that this program reads. Nodes announce it.
	// Version 2 is sealed; version 3 adds positions of views, which have a fingerprint.
	Newest = 3
	// Overhead is the bytes that sealing adds.
	Overhead = 16

	keyLength = 32
)

// ErrForged reports that a token was not sealed for this purpose and scope, by this platform.
var ErrForged = errors.New("token: not sealed for this purpose and scope")

// Sealer seals and opens the tokens of one purpose. It may be used concurrently.
type Sealer struct {
	mac   []byte
	block cipher.Block
}

// NewSealer returns the sealer of a purpose, such as "position", under the secret that
// all nodes share.
func NewSealer(secret []byte, purpose string) *Sealer {
	block, err := aes.NewCipher(derive(secret, purpose+"/encryption"))
	if err != nil {
		panic(err) // the key's length is one that AES supports
	}
	return &Sealer{mac: derive(secret, purpose+"/authentication"), block: block}
}

func derive(secret []byte, use string) []byte {
	key, err := hkdf.Key(sha256.New, secret, nil, "headgate/token/v2/"+use, keyLength)
	if err != nil {
		panic(err) // HKDF fails for lengths beyond 255 hashes only
	}
	return key
}

// Seal appends the sealed content to dst and returns it. The scope, which is not part of
// the token, binds it: to a tenant, a request.
func (s *Sealer) Seal(dst []byte, scope string, content []byte) []byte {
	vector := s.vector(scope, content)
	at := len(dst) + Overhead
	dst = append(append(dst, vector[:]...), content...)
	s.crypt(vector, dst[at:])
	return dst
}

// Open returns the content of a sealed token. Error: [ErrForged].
func (s *Sealer) Open(scope string, sealed []byte) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, ErrForged
	}
	vector := [Overhead]byte(sealed)
	content := append([]byte(nil), sealed[Overhead:]...)
	s.crypt(vector, content)
	if want := s.vector(scope, content); !hmac.Equal(vector[:], want[:]) {
		return nil, ErrForged
	}
	return content, nil
}

func (s *Sealer) vector(scope string, content []byte) [Overhead]byte {
	h := hmac.New(sha256.New, s.mac)
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(scope)))
	h.Write(length[:])
	h.Write([]byte(scope))
	h.Write(content)
	return [Overhead]byte(h.Sum(nil))
}

func (s *Sealer) crypt(vector [Overhead]byte, content []byte) {
	cipher.NewCTR(s.block, vector[:]).XORKeyStream(content, content)
}

// The versions of tokens that a [Gate] distinguishes.
const (
	sealed    = 2
	withViews = 3
)

// Gate selects the version of tokens to issue: the newest that every node of the platform
// reads. The zero Gate selects version 1, a nil one the newest. It may be used concurrently.
type Gate struct{ version atomic.Int32 }

// Sealed reports whether tokens of version 2 are issued, which are sealed.
func (g *Gate) Sealed() bool { return g == nil || g.version.Load() >= sealed }

// Views reports whether positions of views are issued with a fingerprint, version 3.
func (g *Gate) Views() bool { return g == nil || g.version.Load() >= withViews }

// Set selects the version that every node reads.
func (g *Gate) Set(version int) {
	g.version.Store(
		int32(min(max(version, 0), Newest)),
	)
}
