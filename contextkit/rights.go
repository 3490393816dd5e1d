package contextkit

import "strings"

// noRights is the value of [HeaderRights] of a caller that has none of the rights.
const noRights = "none"

// maxRightsBytes bounds the value of [HeaderRights]. Rights beyond it are left out: the node
// refuses what they permit.
const maxRightsBytes = 4 << 10

// Rights are the rights of a caller that the node of the call checks by itself. A right is an
// action such as "command.internal", or "ACTION:RESOURCE" or "ACTION:RESOURCE.PART" if it is
// narrowed to a resource or a part of it.
type Rights struct {
	value string
	known bool
}

// RightsOf returns the rights in a call to a node.
func RightsOf(md Metadata) Rights {
	switch values := md.Values(canonicalRights); len(values) {
	case 0:
		return Rights{}
	case 1:
		return Rights{value: values[0], known: true}
	default: // no gateway states them twice: none counts
		return Rights{known: true}
	}
}

// Known reports whether the gateway has stated the rights. It does if the caller has one of them,
// and for each caller that is the platform (see [FromPlatform]). Gateways of versions before
// these rights state none.
func (r Rights) Known() bool { return r.known }

// Allow reports whether the rights have the action for a part of a resource: for all resources, for
// the resource, or for the part.
func (r Rights) Allow(action, resource, part string) bool {
	for right := range strings.SplitSeq(r.value, " ") {
		right = DecodeText(right)
		if right == action || right == action+":"+resource || right == action+":"+resource+"."+part {
			return true
		}
	}
	return false
}

// List returns the rights. Without a statement of a gateway there are none.
func (r Rights) List() []string {
	if r.value == "" || r.value == noRights {
		return nil
	}
	list := strings.Split(r.value, " ")
	for i, right := range list {
		list[i] = DecodeText(right)
	}
	return list
}

// EncodeRights returns the value of [HeaderRights] of a caller with these rights.
func EncodeRights(rights ...string) string {
	switch {
	case len(rights) == 0:
		return noRights
	case len(rights) == 1 && EncodeText(rights[0]) == rights[0] && !strings.Contains(rights[0], " "):
		return rights[0]
	}
	var out strings.Builder
	for _, right := range rights {
		text := strings.ReplaceAll(EncodeText(right), " ", "%20")
		if out.Len()+len(text) >= maxRightsBytes {
			break
		}
		if out.Len() > 0 {
			out.WriteByte(' ')
		}
		out.WriteString(text)
	}
	return out.String()
}
