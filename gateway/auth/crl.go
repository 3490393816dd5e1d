package auth

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/internal/credentials"
)

const (
	// MaxListsBytes bounds the file of an authority's certificate revocation lists.
	MaxListsBytes = 4 << 20
	// maxLists bounds the lists of an authority, and maxListed the certificates in them.
	maxLists, maxListed = 64, 100_000
	// listLeeway is how far the clock of an authority may be ahead.
	listLeeway = 5 * time.Minute
)

// FileOfLists returns a source that reads the file at path, up to [MaxListsBytes] of it.
func FileOfLists(path string) Source { return fileUpTo(path, MaxListsBytes) }

// certificateID identifies a certificate of a chain: by its issuer's name and its serial number (RFC 5280 §4.1.2.2).
type certificateID struct {
	// Issuer is the hash of the issuer's name, and Key that of the issuer's key; Key is "" for the last certificate.
	Issuer string `json:"i"`
	Key    string `json:"k,omitempty"`
	Serial string `json:"s"`
}

// chainIDs returns the identities of the certificates of a chain.
func chainIDs(chain []*x509.Certificate) []certificateID {
	ids := make([]certificateID, len(chain))
	for i, cert := range chain {
		ids[i] = certificateID{
			Issuer: nameHash(credentials.CertificateIssuer(cert.RawIssuer)),
			Serial: credentials.CertificateSerial(cert.SerialNumber),
		}
		if i+1 < len(chain) {
			ids[i].Key = keyHash(chain[i+1])
		}
	}
	return ids
}

// nameHash returns the hash of the canonical form of a distinguished name.
func nameHash(canonical string) string { return shortHash([]byte(canonical)) }

// keyHash returns the hash of the public key of a certificate.
func keyHash(cert *x509.Certificate) string { return shortHash(cert.RawSubjectPublicKeyInfo) }

func shortHash(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// signer identifies who signs a list: the hashes of a name and of a key.
type signer struct{ name, key string }

// revocationLists are the certificate revocation lists (RFC 5280 §5) of an authority. They are immutable.
type revocationLists struct {
	lists map[signer]*revocationList
	size  int // the number of certificates in them
}

// revocationList is the newest list of a signer.
type revocationList struct {
	from, until time.Time
	number      *big.Int // its CRL number; nil: it has none
	serials     map[string]bool
}

// newerThan reports whether the list was issued after another one of its signer: later, or in the same second under a
// higher number (RFC 5280 §5.2.3).
func (l *revocationList) newerThan(other *revocationList) bool {
	if !l.from.Equal(other.from) || l.number == nil || other.number == nil {
		return l.from.After(other.from)
	}
	return l.number.Cmp(other.number) > 0
}

// partialExtensions are those of lists, and of their entries, that are not complete for their issuer: they must be
// critical (RFC 5280 §5.2.4, §5.2.5, §5.3.3), and change what a list means in any case.
var partialExtensions = []asn1.ObjectIdentifier{
	{2, 5, 29, 27}, // delta CRL indicator
	{2, 5, 29, 28}, // issuing distribution point
	{2, 5, 29, 29}, // certificate issuer
}

// unsupported reports whether a list with an extension, or with an entry that has it, must not be used: RFC 5280 §5.2
// forbids it for unknown critical ones.
func unsupported(extension pkix.Extension) bool {
	return extension.Critical || slices.ContainsFunc(partialExtensions, extension.Id.Equal)
}

// parseLists returns the lists in a text: in PEM, or one in DER. Each must be signed by one of the authorities, and be
// complete for its issuer.
func parseLists(text []byte, authorities []*x509.Certificate) (*revocationLists, error) {
	out := &revocationLists{lists: map[signer]*revocationList{}}
	blocks, count := 0, 0
	parse := func(der []byte) error {
		if blocks++; blocks > maxLists {
			return fmt.Errorf("auth: there are more than %d revocation lists", maxLists)
		}
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return fmt.Errorf("auth: revocation list %d: %w", blocks, err)
		}
		if count += len(list.RevokedCertificateEntries); count > maxListed {
			return fmt.Errorf("auth: the revocation lists have more than %d certificates", maxListed)
		}
		if err := out.add(list, authorities); err != nil {
			return fmt.Errorf("auth: revocation list %d (%.*q): %w", blocks, maxQuoted, list.Issuer.CommonName, err)
		}
		return nil
	}
	block, rest := pem.Decode(text)
	if block == nil {
		if err := parse(text); err != nil {
			return nil, err
		}
	}
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		if err := parse(block.Bytes); err != nil {
			return nil, err
		}
	}
	if len(out.lists) == 0 {
		return nil, errors.New("auth: there is no revocation list (PEM or DER)")
	}
	out.count()
	return out, nil
}

// count sets the number of certificates in the lists.
func (l *revocationLists) count() {
	l.size = 0
	for _, list := range l.lists {
		l.size += len(list.serials)
	}
}

// retain puts the list of former of each signer in the place of one that was issued before it, and reports whether
// there is one: revoked certificates would be accepted again. A list of the future is not retained, since its
// authority's clock may have been wrong.
func (l *revocationLists) retain(former *revocationLists, now time.Time) (older bool) {
	for by, known := range former.lists {
		if next := l.lists[by]; next != nil && known.newerThan(next) && !known.from.After(now.Add(listLeeway)) {
			l.lists[by], older = known, true
		}
	}
	if older {
		l.count()
	}
	return older
}

// add adds a list, if it is the newest one of its signer.
func (l *revocationLists) add(list *x509.RevocationList, authorities []*x509.Certificate) error {
	if list.NextUpdate.IsZero() {
		return errors.New("it does not state when the next one is issued (nextUpdate)")
	}
	for _, extension := range list.Extensions {
		if unsupported(extension) {
			return fmt.Errorf("it has the extension %v: indirect, partial and delta lists are not supported",
				extension.Id)
		}
	}
	name := credentials.CertificateIssuer(list.RawIssuer)
	signed := false
	for _, authority := range authorities {
		if credentials.CertificateIssuer(authority.RawSubject) != name || list.CheckSignatureFrom(authority) != nil {
			continue
		}
		signed = true
		by := signer{nameHash(name), keyHash(authority)}
		next := &revocationList{
			from:    list.ThisUpdate,
			until:   list.NextUpdate,
			number:  list.Number,
			serials: make(map[string]bool, len(list.RevokedCertificateEntries)),
		}
		if known := l.lists[by]; known != nil && !next.newerThan(known) {
			continue
		}
		for _, entry := range list.RevokedCertificateEntries {
			for _, extension := range entry.Extensions {
				if unsupported(extension) {
					return fmt.Errorf("an entry has the extension %v, which is not supported", extension.Id)
				}
			}
			next.serials[credentials.CertificateSerial(entry.SerialNumber)] = true
		}
		l.lists[by] = next
	}
	if !signed {
		return errors.New("no certificate of the authority's file has signed it, or may sign lists (cRLSign): add " +
			"the issuer's certificate to the file")
	}
	return nil
}

// holds reports whether a list has the certificate.
func (l *revocationLists) holds(id certificateID) bool {
	for by, list := range l.lists {
		if by.name == id.Issuer && list.serials[id.Serial] {
			return true
		}
	}
	return false
}

// current reports whether the newest list of the certificate's issuer is valid at the time now.
func (l *revocationLists) current(id certificateID, now time.Time) bool {
	list := l.lists[signer{id.Issuer, id.Key}]
	return list != nil && list.currentAt(now)
}

func (l *revocationList) currentAt(now time.Time) bool {
	return !now.After(l.until) && !now.Before(l.from.Add(-listLeeway))
}

// nextUpdate returns when the first of the lists expires.
func (l *revocationLists) nextUpdate() time.Time {
	var first time.Time
	for _, list := range l.lists {
		if first.IsZero() || list.until.Before(first) {
			first = list.until
		}
	}
	return first
}

// listsOf follows the revocation lists of an authority.
type listsOf struct {
	document      document
	acceptExpired bool

	mu      sync.Mutex // guards all below
	text    []byte     // the last text, which may be invalid for the authority's certificates
	lists   *revocationLists
	expired map[signer]bool // whose lists are not valid now
	away    time.Time       // since when the file cannot be used; zero: it can
}

// OpenLists reads the certificate revocation lists (RFC 5280 §5) of the authority, before its certificates are
// accepted; Run then reloads them. Each certificate of a chain except the last one must have a current list of its
// issuer, unless acceptExpired is set: then the known ones apply. It returns an error if the lists are invalid.
func (a *Authority) OpenLists(ctx context.Context, source Source, acceptExpired bool) error {
	l := &listsOf{
		document:      document{source: source, what: "revocation lists of an authority", most: MaxListsBytes},
		acceptExpired: acceptExpired,
	}
	a.lists = l
	if err := l.document.open(ctx, func(text []byte) error { return a.useLists(text) }); err != nil {
		return err
	}
	l.expire(time.Now())
	return nil
}

// errOlderList reports that a file has a list that was issued before one that is known. The others are in use.
var errOlderList = errors.New("auth: a revocation list was issued before the one that is known, which still applies: " +
	"replace the file by the authority's newest list, or restart the gateway if the former one was a mistake")

// useLists replaces the lists by those of a text, and returns [errOlderList] if it has an older one of a signer.
func (a *Authority) useLists(text []byte) error {
	lists, err := parseLists(text, *a.current.Load())
	l := a.lists
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = text
	if err != nil {
		return err
	}
	if older := l.lists != nil && lists.retain(l.lists, time.Now()); older {
		err = errOlderList
	}
	l.lists, l.away = lists, time.Time{}
	return err
}

// reuseLists checks the last text of the lists by the authority's new certificates.
func (a *Authority) reuseLists(report func(error)) {
	if a.lists == nil {
		return
	}
	a.lists.mu.Lock()
	text := a.lists.text
	a.lists.mu.Unlock()
	if err := a.useLists(text); err != nil {
		a.lists.failed(time.Now())
		report(err)
	}
}

func (l *listsOf) failed(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.away.IsZero() {
		l.away = now
	}
}

// expire notes the lists that are not valid at the time now, and reports whether one of them was until now.
func (l *listsOf) expire(now time.Time) (more bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	expired := map[signer]bool{}
	for by, list := range l.lists.lists {
		if !list.currentAt(now) {
			expired[by], more = true, more || !l.expired[by]
		}
	}
	l.expired = expired
	return more
}

// followLists reloads the lists until ctx ends. It calls changed after changes and when a list expires.
func (a *Authority) followLists(ctx context.Context, changed func(), report func(error)) {
	l := a.lists
	l.document.recovered = func() {
		// The file is read again. Its text may be invalid, or older than what is known, as before.
		if a.useLists(l.document.raw) != nil {
			l.failed(time.Now())
		}
	}
	var running sync.WaitGroup
	running.Go(func() {
		repeat(ctx, pollInterval, func() {
			if l.expire(time.Now()) {
				changed()
			}
		})
	})
	l.document.follow(ctx, a.useLists, changed, func(err error) {
		l.failed(time.Now())
		report(err)
		if errors.Is(err, errOlderList) { // its other lists are in use
			changed()
		}
	})
	running.Wait()
}

// status returns [ErrRevoked] if a certificate of a chain is on a list, and [ErrUnknownStatus] if it has no current
// list, unless expired ones are accepted; nil without lists.
func (a *Authority) status(chain []certificateID, now time.Time) error {
	l := a.lists
	if l == nil {
		return nil
	}
	l.mu.Lock()
	lists := l.lists
	l.mu.Unlock()
	if len(chain) == 0 {
		return ErrUnknownStatus // a delegate of an earlier version
	}
	for _, id := range chain {
		if lists.holds(id) {
			return ErrRevoked
		}
	}
	for _, id := range chain[:len(chain)-1] {
		if !l.acceptExpired && !lists.current(id, now) {
			return ErrUnknownStatus
		}
	}
	return nil
}

// degradedLists returns why the lists may be out of date; "": they are not.
func (a *Authority) degradedLists(now time.Time) string {
	l := a.lists
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	const format = time.RFC3339
	switch next := l.lists.nextUpdate(); {
	case !l.away.IsZero():
		return "the revocation lists of certificates cannot be used since " + l.away.UTC().Format(format) +
			": those known then apply"
	case now.After(next) && l.acceptExpired:
		return "a revocation list of certificates has expired at " + next.UTC().Format(format) + ": it still applies"
	case now.After(next):
		return "a revocation list of certificates has expired at " + next.UTC().Format(format) +
			": certificates of its issuer are rejected"
	}
	return ""
}
