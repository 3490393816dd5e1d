package contextkit

import (
	"slices"
	"strings"
)

// Bounds of a tracestate (W3C Trace Context level 2 §3.3.1).
const (
	maxTracestateMembers = 32
	maxTracestateKey     = 256
	maxTracestateValue   = 256
	// maxTracestate bounds what is propagated, in characters: §3.3.1.5 asks for at least 512,
	// and one member of the greatest length always fits.
	maxTracestate = 1024
	// longTracestateMember is the length beyond which members are left out first when the
	// whole is too long.
	longTracestateMember = 128
)

// CombineTracestate combines the values of all tracestate headers, in order, into the value
// that is propagated: members separated by commas, without empty members and without the space
// around them; of members with the same key the first, which is the most recent. It returns ""
// if there are more than 32 members or one of them is malformed: a list that cannot be parsed
// is dropped whole. From a list of more than 1024 characters it removes members of more than
// 128 characters first, then the last ones.
// Source: W3C Trace Context level 2 §3.3.
func CombineTracestate(values []string) string {
	var room [maxTracestateMembers]string
	members, count := room[:0], 0
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			part = strings.Trim(part, " \t")
			if part == "" {
				continue
			}
			key, ok := tracestateKey(part)
			if count++; !ok || count > maxTracestateMembers {
				return ""
			}
			if !hasTracestateKey(members, key) {
				members = append(members, part)
			}
		}
	}
	members = shortenTracestate(members)
	switch {
	case len(members) == 0:
		return ""
	case len(members) == 1:
		return members[0]
	case len(values) == 1 && len(values[0]) == tracestateLength(members):
		return values[0] // the usual case, which allocates nothing
	}
	return strings.Join(members, ",")
}

// tracestateKey returns the key of a member, and whether the member is well-formed: key and
// value are separated by "=", which neither has.
func tracestateKey(member string) (key string, ok bool) {
	key, value, found := strings.Cut(member, "=")
	if !found || key == "" || len(key) > maxTracestateKey || value == "" || len(value) > maxTracestateValue {
		return "", false
	}
	for i := range len(key) {
		switch c := key[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
		case i > 0 && (c == '_' || c == '-' || c == '*' || c == '/' || c == '@'):
		default:
			return "", false
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '=' { // a comma ended the member
			return "", false
		}
	}
	return key, true
}

func hasTracestateKey(members []string, key string) bool {
	return slices.ContainsFunc(members, func(member string) bool {
		return len(member) > len(key) && member[len(key)] == '=' && member[:len(key)] == key
	})
}

// tracestateLength returns the length of the members with commas between them.
func tracestateLength(members []string) (length int) {
	for _, member := range members {
		length += len(member) + 1
	}
	return length - 1
}

// shortenTracestate leaves whole members out until the rest is short enough.
func shortenTracestate(members []string) []string {
	for i := len(members) - 1; i >= 0 && tracestateLength(members) > maxTracestate; i-- {
		if len(members[i]) > longTracestateMember {
			members = slices.Delete(members, i, i+1)
		}
	}
	for tracestateLength(members) > maxTracestate {
		members = members[:len(members)-1]
	}
	return members
}
