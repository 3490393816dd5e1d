package auth

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// IssuerConfig configures an issuer whose tokens are accepted.
type IssuerConfig struct {
	// Issuer is the required iss claim, byte for byte.
	Issuer string
	// Name begins the subjects of the issuer's principals, as in "NAME:SUBJECT", so that the subjects
	// of two issuers are disjoint. One issuer at most has none.
	Name string
	// Audiences are the accepted audiences: a token must be for at least one of them.
	Audiences []string
	// Keys are the keys that verify the issuer's tokens, and no others.
	Keys *KeyRing
	// Mapping maps the claims of tokens to their principals; nil: sub, tenants and rights.
	Mapping *Mapping
}

var issuerName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// unnamed is the label of the issuer without a name.
const unnamed = "default"

// reservedNames are the names that no issuer may have.
var reservedNames = []string{
	unnamed,
	AnonymousSubject,
	strings.TrimSuffix(apiKeySubject, ":"),
	strings.TrimSuffix(tokenSubjectPrefix, ":"),
}

// CheckIssuerName returns an error if the name cannot begin subjects; "" can.
func CheckIssuerName(name string) error {
	switch {
	case name == "":
		return nil
	case !issuerName.MatchString(name):
		return fmt.Errorf("is %.64q, want 1 to 32 lower-case letters, digits and hyphens, beginning with a letter",
			name)
	case slices.Contains(reservedNames, name):
		return fmt.Errorf("is %q, which is reserved: choose another name", name)
	}
	return nil
}

// trusted is an issuer whose tokens are accepted.
type trusted struct {
	IssuerConfig

	// reserved are the prefixes that subjects of an issuer without a name must not have: the names
	// of the others.
	reserved []string
}

// trust returns the issuers by their iss. further are names that begin subjects as those of issuers do.
func trust(configs []IssuerConfig, further ...string) (map[string]*trusted, error) {
	issuers, names := map[string]*trusted{}, map[string]bool{}
	var reserved []string
	for _, name := range further {
		reserved = append(reserved, name+":")
	}
	for _, config := range configs {
		switch {
		case config.Issuer == "" || len(config.Audiences) == 0 || slices.Contains(config.Audiences, ""):
			return nil, errors.New("auth: issuer and audience must be configured")
		case config.Keys == nil:
			return nil, fmt.Errorf("auth: issuer %s: no key is configured", config.Issuer)
		case issuers[config.Issuer] != nil:
			return nil, fmt.Errorf("auth: issuer %s is configured twice", config.Issuer)
		case names[config.Name]:
			return nil, fmt.Errorf("auth: issuer %s: another issuer has the name %q too", config.Issuer, config.Name)
		}
		if err := CheckIssuerName(config.Name); err != nil {
			return nil, fmt.Errorf("auth: issuer %s: name %w", config.Issuer, err)
		}
		issuers[config.Issuer], names[config.Name] = &trusted{IssuerConfig: config}, true
		if config.Name != "" {
			reserved = append(reserved, config.Name+":")
		}
	}
	for _, issuer := range issuers {
		issuer.reserved = reserved
	}
	return issuers, nil
}

// label returns how the issuer is called in states and metrics.
func (t *trusted) label() string {
	if t.Name == "" {
		return unnamed
	}
	return t.Name
}

// subject returns the subject of the principal of a token whose subject, by its claims, is given.
func (t *trusted) subject(subject string) (string, error) {
	if t.Name == "" {
		return tokenSubject(subject, t.reserved)
	}
	if _, err := tokenSubject(subject, nil); err != nil { // it must be visible
		return "", err
	}
	return t.Name + ":" + subject, nil
}

// DegradedIssuers returns a reason for each issuer whose keys could not be read last, by its name.
func (v *Verifier) DegradedIssuers() map[string]string {
	out := map[string]string{}
	for _, issuer := range v.issuers {
		since, until, away := issuer.Keys.outage()
		switch {
		case !away:
		case until.IsZero():
			out[issuer.label()] = "its keys are not known: its tokens are rejected"
		default:
			out[issuer.label()] = fmt.Sprintf("its keys were last read at %s: the known ones are accepted until %s",
				since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
		}
	}
	return out
}

// KeyRings returns the key rings of the issuers.
func (v *Verifier) KeyRings() []*KeyRing {
	var out []*KeyRing
	for _, issuer := range v.issuers {
		out = append(out, issuer.Keys)
	}
	return out
}
