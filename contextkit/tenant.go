package contextkit

import (
	"errors"
	"fmt"
)

// ErrInvalidTenant is wrapped by every refusal of a tenant id.
var ErrInvalidTenant = errors.New("invalid tenant id")

// maxTenantLength is the length of a DNS label (RFC 1035 §2.3.4).
const maxTenantLength = 63

// TenantID names a tenant. It is a DNS label (RFC 1123: lower-case letters,
// digits and inner hyphens, at most 63), hence safe as a NATS subject token and
// as a file name. The zero value is no tenant; any other is made by
// [ParseTenantID] alone.
type TenantID struct{ name string }

// ParseTenantID returns s as a tenant id, or an error that wraps
// [ErrInvalidTenant] and describes the fault.
func ParseTenantID(s string) (TenantID, error) {
	if s == "" {
		return TenantID{}, fmt.Errorf("%w: it is empty", ErrInvalidTenant)
	}
	if len(s) > maxTenantLength {
		return TenantID{}, fmt.Errorf("%w: it has %d characters, at most %d are allowed", ErrInvalidTenant, len(s),
			maxTenantLength)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return TenantID{}, fmt.Errorf(
				"%w: %q is not allowed at position %d (lower-case letters, digits and inner hyphens are)",
				ErrInvalidTenant, string(rune(c)), i+1,
			)
		}
	}
	return TenantID{name: s}, nil
}

// String returns the tenant's name, "" for the zero value.
func (t TenantID) String() string { return t.name }

// IsZero reports whether t is no tenant.
func (t TenantID) IsZero() bool { return t.name == "" }
