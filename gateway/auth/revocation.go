package auth

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/headgate/headgate/internal/credentials"
)

// Revocation revokes tokens before they expire: the token with an id, or all tokens of a subject or of
// an issuer that were issued before a time. A token without the claim iat counts as issued before any
// time. A certificate of a client counts as a token of the issuer [CertificatesOf] its authority, whose id is
// its serial number in hexadecimal, alone or before "@" and the name of its issuer (see [credentials.CertificateID]),
// and which was issued when its validity began.
type Revocation struct {
	// Tenant limits the revocation to principals that act for this tenant alone; "": it covers all.
	Tenant string `yaml:"-"`
	// Issuer is the iss of the tokens. It is required except with Subject.
	Issuer string `yaml:"issuer,omitempty"`
	// TokenID is the jti of a token of Issuer; "": the revocation is not of a single token.
	TokenID string `yaml:"token_id,omitempty"`
	// Subject is the subject of a principal, as in audit records; "": the revocation is not of one.
	Subject string `yaml:"subject,omitempty"`
	// IssuedBefore is the time before which the tokens were issued; it is unused with TokenID.
	IssuedBefore time.Time `yaml:"issued_before,omitempty"`
	// Expires is when the last of the tokens has expired; the zero time: not known. An expired
	// revocation has no effect.
	Expires time.Time `yaml:"expires,omitempty"`
}

const (
	// MaxRevocations bounds the revocations of one source.
	MaxRevocations = 10_000
	// MaxRevocationBytes bounds the texts of a revocation.
	MaxRevocationBytes = 768
	// MaxRevocationsBytes bounds a file of revocations, so that MaxRevocations of MaxRevocationBytes fit.
	MaxRevocationsBytes = MaxRevocations * (MaxRevocationBytes + 256)
)

// maxTokenID bounds a token's jti in bytes.
const maxTokenID = credentials.MaxTokenID

// Check returns an error if the revocation is of nothing, or of more than one kind.
func (r Revocation) Check() error {
	switch {
	case len(r.Issuer)+len(r.TokenID)+len(r.Subject) > MaxRevocationBytes:
		return fmt.Errorf("issuer, token_id and subject have more than %d bytes", MaxRevocationBytes)
	case r.TokenID != "" && (r.Issuer == "" || r.Subject != ""):
		return errors.New("token_id needs issuer, and no subject: a token's id is unique for its issuer")
	case len(r.TokenID) > maxTokenID:
		return fmt.Errorf("token_id has more than %d bytes", maxTokenID)
	case r.Subject != "" && r.Issuer != "":
		return errors.New("subject needs no issuer: a principal's subject is unique")
	case strings.HasPrefix(r.Subject, apiKeySubject):
		return errors.New("subject is an API key: revoke it, or remove it from its file")
	case r.TokenID == "" && r.Subject == "" && r.Issuer == "":
		return errors.New("token_id, subject or issuer is missing")
	case r.TokenID == "" && r.IssuedBefore.IsZero():
		return errors.New("issued_before is missing")
	}
	return nil
}

// Revocations is an immutable set of revocations.
type Revocations struct {
	tokens            map[tokenID]bool
	subjects, issuers map[scoped]int64 // the end of the time of issue, in Unix milliseconds
	ofTenants         bool             // some are limited to a tenant
	certificates      bool             // some are of single certificates
	size              int
}

// tokenID identifies a token, within the tenant to which a revocation is limited.
type tokenID struct{ tenant, issuer, id string }

// scoped is a subject or an issuer, within the tenant to which a revocation is limited.
type scoped struct{ tenant, name string }

// NewRevocations returns the set of the revocations that have not expired.
func NewRevocations(list []Revocation) (*Revocations, error) {
	if len(list) > MaxRevocations {
		return nil, fmt.Errorf(
			"auth: more than %d revocations: remove expired ones, or revoke all tokens of their issuer in place of "+
				"single ones", MaxRevocations,
		)
	}
	set := &Revocations{tokens: map[tokenID]bool{}, subjects: map[scoped]int64{}, issuers: map[scoped]int64{}}
	now := time.Now()
	for i, r := range list {
		if err := r.Check(); err != nil {
			return nil, fmt.Errorf("auth: revocation %d: %w", i+1, err)
		}
		before := r.IssuedBefore.UnixMilli()
		switch {
		case !r.Expires.IsZero() && now.After(r.Expires):
			continue
		case r.TokenID != "" && strings.HasPrefix(r.Issuer, credentials.CertificatesIssuer):
			set.tokens[tokenID{r.Tenant, r.Issuer, certificateTokenID(r.TokenID)}] = true
			set.certificates = true
		case r.TokenID != "":
			set.tokens[tokenID{r.Tenant, r.Issuer, r.TokenID}] = true
		case r.Subject != "":
			of := scoped{r.Tenant, r.Subject}
			set.subjects[of] = max(before, set.subjects[of])
		default:
			of := scoped{r.Tenant, r.Issuer}
			set.issuers[of] = max(before, set.issuers[of])
		}
		set.ofTenants = set.ofTenants || r.Tenant != ""
		set.size++
	}
	return set, nil
}

// certificateTokenID returns the id of a certificate that a revocation names, as revocations are compared: without its
// issuer it is of every issuer's.
func certificateTokenID(text string) string {
	serial, issuer, err := credentials.CertificateID(text)
	switch {
	case err != nil:
		return text // of no certificate: it must not make the others invalid
	case issuer == "":
		return serial
	}
	return serial + credentials.IssuerSeparator + nameHash(issuer)
}

// covers reports whether the principal's token is revoked. A revocation that is limited to a tenant
// covers no principal that acts for another one too: a tenant's administrators cannot end its calls.
func (s *Revocations) covers(p *Principal) bool {
	return s.coversIn("", p) ||
		s.ofTenants && !p.AnyTenant && len(p.Tenants) == 1 && s.coversIn(p.Tenants[0].String(), p)
}

// coversIn is covers for the revocations that are limited to a tenant; "": to none.
func (s *Revocations) coversIn(tenant string, p *Principal) bool {
	return s.tokens[tokenID{tenant, p.iss, p.tokenID}] || s.certificates && s.coversChain(tenant, p) ||
		p.issued < s.subjects[scoped{tenant, p.Subject}] || p.issued < s.issuers[scoped{tenant, p.iss}]
}

// coversChain reports whether a certificate of the principal's chain is revoked, by its issuer and serial number.
func (s *Revocations) coversChain(tenant string, p *Principal) bool {
	return slices.ContainsFunc(p.chain, func(id certificateID) bool {
		return s.tokens[tokenID{tenant, p.iss, id.Serial + credentials.IssuerSeparator + id.Issuer}]
	})
}

// Sources of revocations.
const (
	// RevocationsFile is the file of the settings.
	RevocationsFile = "file"
	// RevocationsPlatform is control.
	RevocationsPlatform = "platform"
)

// revoked holds the revocations of all sources.
type revoked struct {
	mu      sync.Mutex
	sources map[string]*Revocations
	away    map[string]time.Time // sources that cannot be read, and since when
	current atomic.Pointer[[]*Revocations]
}

// set replaces a source's revocations.
func (r *revoked) set(source string, set *Revocations) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sources[source] = set
	delete(r.away, source)
	var all []*Revocations
	for _, set := range r.sources {
		if set.size > 0 {
			all = append(all, set)
		}
	}
	r.current.Store(&all)
}

// covers reports whether the principal's token or certificate is revoked.
func (r *revoked) covers(p *Principal) bool {
	all := r.current.Load()
	return all != nil && p.iss != "" &&
		slices.ContainsFunc(*all, func(set *Revocations) bool { return set.covers(p) })
}

// SetRevocations replaces the revocations of a source, whose state is then known.
func (v *Verifier) SetRevocations(source string, set *Revocations) { v.revoked.set(source, set) }

// RevocationsAway reports that the revocations of a source cannot be read: the known ones apply.
func (v *Verifier) RevocationsAway(source string) {
	v.revoked.mu.Lock()
	defer v.revoked.mu.Unlock()
	if _, known := v.revoked.away[source]; !known {
		v.revoked.away[source] = time.Now()
	}
}

// DegradedRevocations returns a reason for each source of revocations that cannot be read.
func (v *Verifier) DegradedRevocations() map[string]string {
	v.revoked.mu.Lock()
	defer v.revoked.mu.Unlock()
	out := map[string]string{}
	for source, since := range v.revoked.away {
		out[source] = fmt.Sprintf("revocations of tokens are not received since %s: those known then apply",
			since.UTC().Format(time.RFC3339))
	}
	for _, authority := range v.authorities {
		if reason := authority.Certificates.degradedLists(time.Now()); reason != "" {
			out["certificates "+authority.Name] = reason
		}
	}
	return out
}

// RevocationList follows a YAML list of revocations.
type RevocationList struct {
	document document
	current  *Revocations
	valid    bool // the text in use is the one of current
}

// OpenRevocations reads a list of revocations; it returns an error if they are invalid.
func OpenRevocations(ctx context.Context, source Source) (*RevocationList, error) {
	l := &RevocationList{document: document{source: source, what: "revocations", most: MaxRevocationsBytes}}
	return l, l.document.open(ctx, l.use)
}

// Run reloads the list until ctx ends. It calls changed with the set after every change and when a
// failure has ended, and report
// after failures: the former set then stays in use.
func (l *RevocationList) Run(ctx context.Context, changed func(*Revocations), report func(error)) {
	l.document.recovered = func() {
		if l.valid {
			changed(l.current)
		}
	}
	l.document.follow(ctx, l.use, func() { changed(l.current) }, report)
}

func (l *RevocationList) use(text []byte) error {
	l.valid = false
	var list []Revocation
	if err := yaml.Unmarshal(text, &list); err != nil {
		return fmt.Errorf("auth: revocations: %w", err)
	}
	for i, r := range list {
		if r.TokenID == "" || !strings.HasPrefix(r.Issuer, credentials.CertificatesIssuer) {
			continue
		}
		if _, _, err := credentials.CertificateID(r.TokenID); err != nil {
			return fmt.Errorf("auth: revocation %d: token_id is of no certificate: %w", i+1, err)
		}
	}
	set, err := NewRevocations(list)
	if err == nil {
		l.current, l.valid = set, true
	}
	return err
}
