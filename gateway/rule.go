package gateway

// rule is the rule that denied a call.
type rule uint8

const (
	ruleNone       rule = iota // the call is not denied
	ruleCredential             // its credential is missing, not accepted, or not valid any more
	ruleRight                  // its principal lacks the right
	ruleSuspended              // its tenant is suspended
	ruleTenant                 // its credential is not for the tenant
)

// denialRules are all rules but ruleNone.
var denialRules = []rule{ruleCredential, ruleRight, ruleSuspended, ruleTenant}

// String returns the rule's name in metrics and audit records, "" for ruleNone.
func (r rule) String() string {
	return [...]string{"", "CREDENTIAL", "RIGHT", "SUSPENDED", "TENANT"}[r]
}
