package auth_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/headgate/headgate/gateway/auth"
)

// encode is base64url without padding.
var encode = base64.RawURLEncoding.EncodeToString

// signer signs any payload with an Ed25519 key, "k" in its set.
type signer struct {
	private ed25519.PrivateKey
}

func newSigner(t testing.TB) signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{private}
}

// sign returns a token with the given header and claims, unchanged.
func (s signer) sign(header, claims string) string {
	input := encode([]byte(header)) + "." + encode([]byte(claims))
	return input + "." + encode(ed25519.Sign(s.private, []byte(input)))
}

func (s signer) set(t testing.TB) []byte {
	t.Helper()
	return keySet(t, jose.JSONWebKey{Key: s.private.Public(), KeyID: "k", Algorithm: "EdDSA"})
}

func keySet(t testing.TB, keys ...jose.JSONWebKey) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// fixed is a source that never changes.
func fixed(document []byte) auth.Source {
	return func(context.Context) ([]byte, error) { return document, nil }
}

// accept returns the configuration that accepts tokens of the issuer "issuer".
func accept(keys *auth.KeyRing) auth.Config {
	return auth.Config{Issuers: []auth.IssuerConfig{{
		Issuer:    "issuer",
		Audiences: []string{"audience"},
		Keys:      keys,
	}}}
}

// verifierOf returns a verifier of tokens under the keys of the source.
func verifierOf(t testing.TB, source auth.Source) (*auth.KeyRing, *auth.Verifier) {
	t.Helper()
	ring, err := auth.OpenKeyRing(t.Context(), source)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewVerifier(accept(ring))
	if err != nil {
		t.Fatal(err)
	}
	return ring, verifier
}

const goodHeader = `{"alg":"EdDSA","kid":"k"}`

// with returns valid claims with the member name set to value; "" leaves it out.
func with(name, value string) string {
	members := map[string]string{
		"iss": `"issuer"`, "aud": `["audience"]`, "sub": `"app"`, "exp": fmt.Sprint(time.Now().Add(time.Hour).Unix()),
		"tenants": `["acme"]`, "rights": `["query.read"]`,
	}
	members[name] = value
	var out []string
	for name, value := range members {
		if name != "" && value != "" {
			out = append(out, fmt.Sprintf("%q:%s", name, value))
		}
	}
	return "{" + strings.Join(out, ",") + "}"
}

func TestVerifier_TokenHeader(t *testing.T) {
	signer := newSigner(t)
	_, verifier := verifierOf(t, fixed(signer.set(t)))
	for _, tc := range []struct {
		name, header string
		cause        string // "": accepted
	}{
		{"alg and kid", goodHeader, ""},
		{"typ JWT", `{"alg":"EdDSA","kid":"k","typ":"JWT"}`, ""},
		{"typ in lower case", `{"alg":"EdDSA","kid":"k","typ":"jwt"}`, ""},
		{"typ as a media type", `{"alg":"EdDSA","kid":"k","typ":"application/JWT"}`, ""},
		{"typ of an access token", `{"alg":"EdDSA","kid":"k","typ":"at+jwt"}`, ""},
		{"typ of another purpose", `{"alg":"EdDSA","kid":"k","typ":"logout+jwt"}`, "wrong type"},
		{"typ is a number", `{"alg":"EdDSA","kid":"k","typ":1}`, "typ is not a string"},
		{"unknown members", `{"alg":"EdDSA","kid":"k","x":{"y":[1]}}`, ""},
		{"crit of an extension", `{"alg":"EdDSA","kid":"k","crit":["exp"],"exp":1}`, "crit is not supported"},
		{"crit that is absent", `{"alg":"EdDSA","kid":"k","crit":["x"]}`, "crit is not supported"},
		{"crit is empty", `{"alg":"EdDSA","kid":"k","crit":[]}`, "crit is not supported"},
		{"crit is null", `{"alg":"EdDSA","kid":"k","crit":null}`, "crit is not supported"},
		{"crit of b64", `{"alg":"EdDSA","kid":"k","crit":["b64"],"b64":true}`, "crit is not supported"},
		{"b64 false", `{"alg":"EdDSA","kid":"k","b64":false}`, "b64 is not supported"},
		{"b64 true", `{"alg":"EdDSA","kid":"k","b64":true}`, "b64 is not supported"},
		{"a token inside", `{"alg":"EdDSA","kid":"k","cty":"JWT"}`, "cty is not supported"},
		{"alg twice", `{"alg":"EdDSA","alg":"EdDSA","kid":"k"}`, `member "alg" occurs twice`},
		{"alg twice, escaped", `{"alg":"EdDSA","\u0061lg":"none","kid":"k"}`, `member "alg" occurs twice`},
		{"kid twice", `{"alg":"EdDSA","kid":"x","kid":"k"}`, `member "kid" occurs twice`},
		{"a member twice, deep", `{"alg":"EdDSA","kid":"k","x":[{"y":1,"y":2}]}`, `member "y" occurs twice`},
		{"names in capitals", `{"ALG":"EdDSA","KID":"k"}`, "kid must have"},
		{"alg is absent", `{"kid":"k"}`, "wrong algorithm"},
		{"alg none", `{"alg":"none","kid":"k"}`, "wrong algorithm"},
		{"alg NONE", `{"alg":"NonE","kid":"k"}`, "wrong algorithm"},
		{"alg in lower case", `{"alg":"eddsa","kid":"k"}`, "wrong algorithm"},
		{"another alg", `{"alg":"ES256","kid":"k"}`, "wrong algorithm"},
		{"alg HS256", `{"alg":"HS256","kid":"k"}`, "wrong algorithm"},
		{"alg is a list", `{"alg":["EdDSA"],"kid":"k"}`, "alg is not a string"},
		{"kid is absent", `{"alg":"EdDSA"}`, "kid must have"},
		{"kid is empty", `{"alg":"EdDSA","kid":""}`, "kid must have"},
		{"kid is null", `{"alg":"EdDSA","kid":null}`, "kid is not a string"},
		{"kid is a number", `{"alg":"EdDSA","kid":1}`, "kid is not a string"},
		{"kid is long", `{"alg":"EdDSA","kid":"` + strings.Repeat("k", 300) + `"}`, "kid must have"},
		{"kid is unknown", `{"alg":"EdDSA","kid":"other"}`, `unknown key: kid is "other"`},
		{"not an object", `["EdDSA"]`, "not a JSON object"},
		{"null", `null`, "not a JSON object"},
		{"text after it", goodHeader + `{}`, "not a JSON object"},
		{"not UTF-8", "{\"alg\":\"EdDSA\",\"kid\":\"k\",\"x\":\"\xff\"}", "not UTF-8"},
		{
			"deep", `{"alg":"EdDSA","kid":"k","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
			"nested too deeply",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check(t, verifier, "Bearer "+signer.sign(tc.header, with("", "")), tc.cause)
		})
	}
}

// check authenticates, and expects an error with the cause, or none if it is empty.
func check(t *testing.T, verifier *auth.Verifier, header, cause string) {
	t.Helper()
	p, err := verifier.Authenticate(t.Context(), time.Now(), []string{header})
	switch {
	case cause == "" && err != nil:
		t.Fatal(err)
	case cause == "":
	case p != nil, !errors.Is(err, auth.ErrBadToken), !strings.Contains(err.Error(), cause):
		t.Fatalf("%v, %v; want an error with %q", p, err, cause)
	case auth.Public(err).Error() != "the token is invalid":
		t.Fatalf("the caller learns %q", auth.Public(err))
	}
}

func TestVerifier_TokenClaims(t *testing.T) {
	signer := newSigner(t)
	_, verifier := verifierOf(t, fixed(signer.set(t)))
	const noDate = "is not a whole number of seconds"
	for _, tc := range []struct {
		name, claims string
		cause        string // "": accepted
	}{
		{"all", with("", ""), ""},
		{"aud is a string", with("aud", `"audience"`), ""},
		{"aud in a list", with("aud", `["x","audience"]`), ""},
		{"foreign aud", with("aud", `["x"]`), `wrong audience: aud is "x"`},
		{"aud is absent", with("aud", ""), "wrong audience"},
		{"aud is null", with("aud", "null"), "aud is not"},
		{"aud contains null", with("aud", `["audience",null]`), "aud is not"},
		{"aud is an object", with("aud", `{"audience":1}`), "aud is not"},
		{"foreign iss", with("iss", `"x"`), `wrong issuer: iss is "x"`},
		{"iss is a list", with("iss", `["issuer"]`), "iss is not a string"},
		{"iss is absent", with("iss", ""), "wrong issuer"},
		{"sub is absent", with("sub", ""), "sub is missing"},
		{"sub is empty", with("sub", `""`), "sub is missing"},
		{"sub cannot be seen", with("sub", `"\u200b\u0000 "`), "sub is missing"},
		{"sub is a number", with("sub", "1"), "sub is not a string"},
		{"sub is long", with("sub", `"`+strings.Repeat("x", 256)+`"`), "sub has more than"},
		{"sub twice", strings.Replace(with("", ""), "{", `{"sub":"root",`, 1), `member "sub" occurs twice`},
		{
			"rights twice, escaped", strings.Replace(with("", ""), "{", `{"\u0072ights":["x.y"],`, 1),
			`member "rights" occurs twice`,
		},
		{"a claim in capitals", with("EXP", "1"), ""},
		{"tenants are a string", with("tenants", `"acme"`), "tenants is not an array"},
		{"tenants contain a number", with("tenants", `[1]`), "tenants is not an array"},
		{"tenants contain null", with("tenants", `[null]`), "tenants is not an array"},
		{"invalid tenant", with("tenants", `["a b"]`), "invalid claims"},
		{"invalid right", with("rights", `["everything"]`), "invalid claims"},
		{"no tenants and rights", with("tenants", ""), ""},
		{"not an object", `"app"`, "not a JSON object"},
		{"not JSON", `{`, "not a JSON object"},

		{"exp is absent", with("exp", ""), "exp is missing"},
		{"exp in the year 9999", with("exp", "253402300799"), "exp is more than"},
		{"exp in the year 10000", with("exp", "253402300800"), "exp " + noDate},
		{"exp beyond int64", with("exp", "9223372036854775808"), "exp " + noDate},
		{"exp beyond uint64", with("exp", "18446744073709551616"), "exp " + noDate},
		{"exp is 1e300", with("exp", "1e300"), "exp " + noDate},
		{"exp is 1e3000", with("exp", "1e3000"), "exp " + noDate},
		{"exp has an exponent", with("exp", "4e9"), "exp " + noDate},
		{"exp is a float", with("exp", "4000000000.5"), "exp " + noDate},
		{"exp is negative", with("exp", "-1"), "exp " + noDate},
		{"exp is minus zero", with("exp", "-0"), "exp " + noDate},
		{"exp is a string", with("exp", `"4000000000"`), "exp " + noDate},
		{"exp is null", with("exp", "null"), "exp " + noDate},
		{"exp is true", with("exp", "true"), "exp " + noDate},
		{"exp is a list", with("exp", "[4000000000]"), "exp " + noDate},
		{"nbf is zero", with("nbf", "0"), ""},
		{"nbf is 1e300", with("nbf", "1e300"), "nbf " + noDate},
		{"nbf is negative", with("nbf", "-62135596801"), "nbf " + noDate},
		{"nbf is a string", with("nbf", `"0"`), "nbf " + noDate},
		{"iat is a float", with("iat", "0.5"), "iat " + noDate},
		{"iat is 1e300", with("iat", "1e300"), "iat " + noDate},
	} {
		t.Run(tc.name, func(t *testing.T) {
			check(t, verifier, "Bearer "+signer.sign(goodHeader, tc.claims), tc.cause)
		})
	}
}

func TestVerifier_TokenHasOneAcceptedText(t *testing.T) {
	signer := newSigner(t)
	_, verifier := verifierOf(t, fixed(signer.set(t)))
	good := signer.sign(goodHeader, with("", ""))
	parts := strings.Split(good, ".")
	// An Ed25519 signature has 64 bytes, so that 4 bits of its last character are unused.
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", good[len(good)-1])
	stray := good[:len(good)-1] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last|1])
	flattened := fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts[1], parts[0], parts[2])
	general := fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts[1], parts[0],
		parts[2])
	check(t, verifier, "Bearer "+good, "")
	for name, text := range map[string]string{
		"padding":                  good + "==",
		"padding of a part":        parts[0] + "=." + parts[1] + "." + parts[2],
		"stray bits":               stray,
		"a line break":             good[:20] + "\n" + good[20:],
		"a carriage return":        good + "\r",
		"a space":                  good + " ",
		"a space inside":           parts[0] + ". " + parts[1] + "." + parts[2],
		"a tab":                    "\t" + good,
		"the standard alphabet":    "+" + good[1:],
		"JSON, flattened":          flattened,
		"JSON, general":            general,
		"a fourth part":            good + ".x",
		"a final dot":              good + ".",
		"no signature":             parts[0] + "." + parts[1] + ".",
		"no third part":            parts[0] + "." + parts[1],
		"no claims":                parts[0] + ".." + parts[2],
		"no header":                "." + parts[1] + "." + parts[2],
		"an encrypted token":       strings.Repeat(encode([]byte("{}"))+".", 4) + "x",
		"two tokens":               good + ", Bearer " + good,
		"NUL":                      good + "\x00",
		"not ASCII":                good + "é",
		"too long":                 strings.Repeat("a", 17<<10),
		"only dots":                "..",
		"header in capitals":       strings.ToUpper(parts[0]) + "." + parts[1] + "." + parts[2],
		"the scheme twice":         "Bearer " + good,
		"percent-encoded":          strings.ReplaceAll(good, ".", "%2E"),
		"claims of another token":  parts[0] + "." + encode([]byte(with("sub", `"root"`))) + "." + parts[2],
		"the header written twice": encode([]byte(goodHeader+" ")) + "." + parts[1] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			if p, err := verifier.Authenticate(
				t.Context(), time.Now(), []string{"Bearer " + text},
			); !errors.Is(err, auth.ErrBadToken) {
				t.Fatalf("%v, %v", p, err)
			}
		})
	}
}

func TestVerifier_AuthorizationHeader(t *testing.T) {
	signer := newSigner(t)
	_, verifier := verifierOf(t, fixed(signer.set(t)))
	good := signer.sign(goodHeader, with("", ""))
	for _, tc := range []struct {
		name   string
		header []string
		want   error
	}{
		{"once", []string{"Bearer " + good}, nil},
		{"the scheme in lower case", []string{"bearer " + good}, nil},
		{"the scheme in capitals", []string{"BEARER " + good}, nil},
		{"two spaces", []string{"Bearer  " + good}, nil},
		{"none", nil, auth.ErrNoCredential},
		{"empty", []string{""}, auth.ErrNoCredential},
		{"no token", []string{"Bearer"}, auth.ErrNoCredential},
		{"space without a token", []string{"Bearer "}, auth.ErrNoCredential},
		{"no scheme", []string{good}, auth.ErrNoCredential},
		{"other scheme", []string{"Basic " + good}, auth.ErrNoCredential},
		{"DPoP", []string{"DPoP " + good}, auth.ErrNoCredential},
		{"twice", []string{"Bearer " + good, "Bearer " + good}, auth.ErrManyCredentials},
		{"twice, one empty", []string{"Bearer " + good, ""}, auth.ErrManyCredentials},
		{"two tokens in one header", []string{"Bearer " + good + ",Bearer " + good}, auth.ErrBadToken},
		{"an API key's prefix in capitals", []string{"Bearer HGK_app_x"}, auth.ErrBadToken},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if p, err := verifier.Authenticate(t.Context(), time.Now(), tc.header); !errors.Is(err, tc.want) ||
				(p == nil) != (tc.want != nil) {
				t.Fatalf("%v, %v; want %v", p, err, tc.want)
			}
		})
	}
}

func TestVerifier_SubjectsOfTokensAndAPIKeysAreDisjoint(t *testing.T) {
	signer := newSigner(t)
	_, verifier := verifierOf(t, fixed(signer.set(t)))
	for subject, want := range map[string]string{
		"app": "app", "Zoë": "Zoë", "monkey:ops": "monkey:ops", "keys": "keys", "urn:key:ops": "urn:key:ops",
		"anonymous@example.com": "anonymous@example.com",
		"key:ops":               "token:key:ops", "KEY:ops": "token:KEY:ops", " key:ops": "token: key:ops",
		"k\u200bey:ops": "token:k\u200bey:ops", "\u202ekey:ops": "token:\u202ekey:ops",
		"key\u00ad:ops": "token:key\u00ad:ops", "key :ops": "token:key :ops",
		"anonymous": "token:anonymous", "Anonymous ": "token:Anonymous ", "token:x": "token:token:x",
	} {
		text, err := json.Marshal(subject)
		if err != nil {
			t.Fatal(err)
		}
		p, err := verifier.Authenticate(t.Context(), time.Now(),
			[]string{"Bearer " + signer.sign(goodHeader, with("sub", string(text)))})
		if err != nil || p.Subject != want {
			t.Errorf("%q: %+v, %v; want %q", subject, p, err, want)
		}
	}
}

func TestVerifier_KeyDeterminesAlgorithm(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, verifier := verifierOf(t, fixed(keySet(t,
		jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "RS256", Algorithm: "RS256"},
		jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "PS256", Algorithm: "PS256"},
		jose.JSONWebKey{Key: p256.Public(), KeyID: "ES256", Algorithm: "ES256"},
		jose.JSONWebKey{Key: p384.Public(), KeyID: "ES384", Algorithm: "ES384"},
		jose.JSONWebKey{
			Key:       rsaKey.Public(),
			KeyID:     "RSA-OAEP",
			Algorithm: "RSA-OAEP",
			Use:       "enc",
		},
	)))
	private := map[string]any{"RS256": rsaKey, "PS256": rsaKey, "ES256": p256, "ES384": p384, "RSA-OAEP": rsaKey}
	for kid, key := range private {
		for _, algorithm := range []jose.SignatureAlgorithm{"RS256", "RS512", "PS256", "ES256", "ES384"} {
			options := (&jose.SignerOptions{}).WithHeader("kid", kid)
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
			if err != nil {
				continue // not for this type of key
			}
			signed, err := signer.Sign([]byte(with("", "")))
			if err != nil {
				continue
			}
			token, err := signed.CompactSerialize()
			if err != nil {
				t.Fatal(err)
			}
			_, err = verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + token})
			if want := kid == string(algorithm); (err == nil) != want {
				t.Errorf("key %s, algorithm %s: %v, want accepted %t", kid, algorithm, err, want)
			}
		}
	}
	// The classic confusion: HMAC under the public key (RFC 8725 §2.1).
	for _, kid := range []string{"RS256", "ES256"} {
		input := encode([]byte(`{"alg":"HS256","kid":"`+kid+`"}`)) + "." + encode([]byte(with("", "")))
		mac := hmac.New(sha256.New, rsaKey.N.Bytes())
		mac.Write([]byte(input))
		check(t, verifier, "Bearer "+input+"."+encode(mac.Sum(nil)), "wrong algorithm")
	}
}

func TestVerifier_SecondECDSASignatureReplacesTheFirst(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, verifier := verifierOf(t, fixed(keySet(t, jose.JSONWebKey{Key: key.Public(), KeyID: "k", Algorithm: "ES256"})))
	input := encode([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + encode([]byte(with("", "")))
	sum := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	token := func(s *big.Int) string {
		return input + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	first, second := token(s), token(new(big.Int).Sub(elliptic.P256().Params().N, s))
	for range 3 {
		check(t, verifier, "Bearer "+first, "")
		check(t, verifier, "Bearer "+second, "")
	}
	if n := auth.CachedTokens(verifier); n != 1 {
		t.Errorf("%d entries are cached, want 1", n)
	}
}

func TestOpenKeyRing_UnsafeKeySetIsRejected(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("GODEBUG", "rsa1024min=0")
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	public := func(key any, id, algorithm string) jose.JSONWebKey {
		return jose.JSONWebKey{Key: key, KeyID: id, Algorithm: algorithm}
	}
	good := public(rsaKey.Public(), "k", "RS256")
	for _, tc := range []struct {
		name string
		text []byte
		want string // "": accepted
	}{
		{"public key", keySet(t, good), ""},
		{"additional key for encryption", keySet(t, good, jose.JSONWebKey{
			Key:       rsaKey.Public(),
			KeyID:     "e",
			Algorithm: "RSA-OAEP",
			Use:       "enc",
		}), ""},
		{
			"a symmetric key", keySet(t, public([]byte("0123456789abcdef0123456789abcdef"), "k", "HS256")),
			"not a public key",
		},
		{
			"a symmetric key as another", keySet(t, public([]byte("0123456789abcdef0123456789abcdef"), "k", "RS256")),
			"not a public key",
		},
		{"a private key", keySet(t, public(rsaKey, "k", "RS256")), "not a public key"},
		{"no kid", keySet(t, public(rsaKey.Public(), "", "RS256")), "kid"},
		{"duplicate kid", keySet(t, good, public(p256.Public(), "k", "ES256")), "duplicate kid"},
		{"no alg", keySet(t, public(rsaKey.Public(), "k", "")), ""},
		{"alg none", keySet(t, public(rsaKey.Public(), "k", "none")), "none"},
		{"an alg of another type", keySet(t, public(rsaKey.Public(), "k", "ES256")), "type, curve or size"},
		{"an alg of another curve", keySet(t, public(p256.Public(), "k", "ES384")), "type, curve or size"},
		{"EdDSA for RSA", keySet(t, public(rsaKey.Public(), "k", "EdDSA")), "type, curve or size"},
		{"RSA of 1024 bits", keySet(t, public(small.Public(), "k", "RS256")), "2048"},
		{
			"only a key for encryption", keySet(t, jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "e", Use: "enc"}),
			"no signing key",
		},
		{"no key", []byte(`{"keys":[]}`), "no signing key"},
		{"null", []byte(`{"keys":[null]}`), "not a JWK"},
		{"an unknown type", []byte(`{"keys":[{"kty":"XYZ","kid":"k","alg":"EdDSA"}]}`), "not a JWK"},
		{"not JSON", []byte("hello"), "not JSON"},
		{"too large", bytes.Repeat([]byte(" "), 2<<20), "larger than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := auth.OpenKeyRing(t.Context(), fixed(tc.text))
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestNewVerifier_ConfigurationIsComplete(t *testing.T) {
	ring, _ := verifierOf(t, fixed(newSigner(t).set(t)))
	issuer := func(change func(*auth.IssuerConfig)) auth.Config {
		config := accept(ring)
		change(&config.Issuers[0])
		return config
	}
	for name, config := range map[string]auth.Config{
		"nothing":         {},
		"no issuer":       issuer(func(c *auth.IssuerConfig) { c.Issuer = "" }),
		"no audience":     issuer(func(c *auth.IssuerConfig) { c.Audiences = nil }),
		"empty name":      issuer(func(c *auth.IssuerConfig) { c.Audiences = []string{"audience", ""} }),
		"no keys":         issuer(func(c *auth.IssuerConfig) { c.Keys = nil }),
		"a reserved name": issuer(func(c *auth.IssuerConfig) { c.Name = "key" }),
		"an invalid name": issuer(func(c *auth.IssuerConfig) { c.Name = "Corp" }),
		"the same twice":  {Issuers: append(accept(ring).Issuers, accept(ring).Issuers...)},
	} {
		if _, err := auth.NewVerifier(config); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestIssuer_KeyIsStored(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key.json")
	issuer, err := auth.OpenIssuer(path, "issuer", "audience")
	if err != nil {
		t.Fatal(err)
	}
	again, err := auth.OpenIssuer(path, "issuer", "audience")
	if err != nil {
		t.Fatal(err)
	}
	config, err := again.Config(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := auth.NewVerifier(config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := issuer.Issue(principal(t), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	check(t, verifier, "Bearer "+token, "")
}

// FuzzVerifier sends any text as a token: no text is accepted that differs from its canonical
// encoding, and none panics.
func FuzzVerifier(f *testing.F) {
	key := newSigner(f)
	_, verifier := verifierOf(f, fixed(key.set(f)))
	good := key.sign(goodHeader, with("", ""))
	for _, seed := range []string{
		good, good + "=", "", "..", "a.b.c", key.sign(`{"alg":"EdDSA","kid":"k","crit":["b64"]}`, `{}`),
		key.sign(goodHeader, with("exp", "1e300")),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := verifier.Authenticate(t.Context(), time.Now(), []string{"Bearer " + text})
		if (p == nil) == (err == nil) {
			t.Fatalf("%v, %v", p, err)
		}
		if err == nil && strings.TrimLeft(text, " ") != good {
			t.Fatalf("%q is accepted", text)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Fatalf("error of %d bytes", len(err.Error()))
		}
	})
}
