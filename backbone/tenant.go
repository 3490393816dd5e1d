package backbone

// Tenant is what is known of a tenant beside the configuration. It stands in the
// bucket [BucketTenants] under its name.
type Tenant struct {
	// Suspended says that the tenant's calls are refused; Reason why.
	Suspended bool   `json:"suspended,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Quota bounds the tenant's calls; nil: as all others.
	Quota *Quota `json:"quota,omitempty"`
	// Storage bounds what the tenant stores; nil: as all others.
	Storage *StorageQuota `json:"storage,omitempty"`
}

// StorageQuota bounds what a tenant stores in the journal. 0: as all others, or without a
// bound where it is the quota of all others.
type StorageQuota struct {
	// Events and Bytes are the events, and the bytes of their messages.
	Events int64 `json:"events,omitempty" yaml:"events"`
	Bytes  int64 `json:"bytes,omitempty" yaml:"bytes"`
	// Aggregates are those with events.
	Aggregates int64 `json:"aggregates,omitempty" yaml:"aggregates"`
	// Keys are the commands with idempotency keys of the last seven days.
	Keys int64 `json:"keys,omitempty" yaml:"keys"`
}

// Quota bounds a tenant's calls at each gateway. 0: as all others.
type Quota struct {
	// Rate is the calls a second, on average, and Burst the calls at once above it.
	Rate  float64 `json:"rate,omitempty"`
	Burst int     `json:"burst,omitempty"`
	// Concurrent is the calls in flight, and Streams the streams of answers.
	Concurrent int `json:"concurrent,omitempty"`
	Streams    int `json:"streams,omitempty"`
}
