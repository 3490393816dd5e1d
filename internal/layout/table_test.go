package layout

// groups are names in mayImport for several folders.
var groups = map[string][]string{
	// small packages without a part of the platform's state
	"small": {
		"internal/backoff", "internal/config", "internal/descriptors", "internal/disk", "internal/excerpt",
		"internal/fairqueue",
		"internal/fanout", "internal/format", "internal/lazydeadline", "internal/rights", "internal/tlsfiles",
		"internal/token",
		"internal/tracing", "internal/traffic", "internal/version",
	},
	// access to NATS: no concept of the platform
	"nats": {"internal/natsclient", "internal/streams", "internal/natshealth", "internal/kv"},
	// what nodes share over NATS
	"shared": {
		"internal/auditlog", "internal/credentials", "internal/deadletter", "internal/fleet", "internal/journal",
		"internal/lease", "internal/models", "internal/position",
		"internal/skips", "internal/tail", "internal/timeline", "internal/usage", "internal/workqueue",
	},
	"services": {"services/aggregate", "services/control", "services/projection", "services/runner"},
}

// mayImport has, for each folder with all packages below it, the folders and groups that its packages may import, apart
// from its own. Tests may import more. docs/architecture.md describes the folders.
var mayImport = map[string][]string{
	"gen":        nil,
	"contextkit": {"gen"},
	"model":      {"internal/excerpt"},

	"internal/backoff":      nil,
	"internal/certs":        nil,
	"internal/config":       nil,
	"internal/descriptors":  nil,
	"internal/disk":         nil,
	"internal/excerpt":      nil,
	"internal/fairqueue":    nil,
	"internal/fanout":       {"internal/config"},
	"internal/fastpath":     {"internal/config"},
	"internal/format":       nil,
	"internal/layout":       nil,
	"internal/lazydeadline": {"contextkit"},
	"internal/oidctest":     nil,
	"internal/rights":       nil,
	"internal/tlsfiles":     nil,
	"internal/token":        nil,
	"internal/traffic":      nil,
	"internal/tracing":      {"contextkit", "internal/config"},
	"internal/version":      nil,
	"internal/wordlist":     nil,

	"internal/rpc": {"contextkit", "gen", "small", "internal/fastpath"},

	"internal/natsclient": {"contextkit", "small"},
	"internal/streams":    {"contextkit", "small", "internal/natsclient"},
	"internal/natshealth": {"contextkit", "small", "internal/natsclient", "internal/streams"},
	"internal/kv":         {"contextkit", "small", "internal/natsclient", "internal/streams"},
	"internal/natsserver": {"contextkit", "small", "internal/natsclient", "internal/streams", "internal/natshealth"},

	"internal/auditlog":    {"contextkit", "small", "nats"},
	"internal/credentials": {"contextkit", "small", "nats"},
	"internal/fleet":       {"contextkit", "small", "nats"},
	"internal/journal":     {"contextkit", "small", "nats"},
	"internal/lease":       {"contextkit", "small", "nats"},
	"internal/models":      {"contextkit", "small", "nats"},
	"internal/position":    {"contextkit", "internal/token"},
	"internal/skips":       {"contextkit", "small", "nats"},
	"internal/timeline":    {"contextkit", "small", "nats"},
	"internal/workqueue":   {"contextkit", "small", "nats"},
	"internal/deadletter":  {"contextkit", "small", "nats", "internal/journal"},
	"internal/tail":        {"contextkit", "small", "nats", "internal/journal"},
	"internal/usage":       {"contextkit", "small", "nats", "internal/fleet", "internal/journal"},
	"internal/setup":       {"contextkit", "small", "nats", "internal/journal"},
	"internal/access":      {"contextkit", "small", "nats", "shared", "internal/setup"},
	"internal/backup":      {"contextkit", "small", "nats", "internal/journal", "internal/setup"},
	"internal/natstest":    {"contextkit", "small", "nats", "shared", "internal/natsserver", "internal/setup"},

	// The gateway knows services by their descriptors alone.
	"gateway": {"contextkit", "gen", "small", "nats", "shared", "internal/fastpath", "internal/rpc"},

	// A service imports no other service, and not the gateway.
	"services/aggregate":  {"contextkit", "gen", "model", "small", "nats", "shared", "internal/rpc"},
	"services/control":    {"contextkit", "gen", "model", "small", "nats", "shared", "internal/rpc"},
	"services/projection": {"contextkit", "gen", "model", "small", "nats", "shared", "internal/rpc"},
	"services/runner":     {"contextkit", "gen", "model", "small", "nats", "shared", "internal/rpc"},

	"control": nil,
	"internal/node": {
		"contextkit", "gen", "model", "small", "nats", "shared", "services", "gateway", "control", "internal/access",
		"internal/backup", "internal/fastpath",
		"internal/natsserver", "internal/rpc", "internal/setup",
	},
	"cmd": {
		"contextkit", "gen", "model", "small", "nats", "shared", "services", "gateway", "control", "internal/access",
		"internal/certs",
		"internal/backup", "internal/fastpath",
		"internal/natsserver", "internal/node", "internal/rpc", "internal/setup",
	},
}
