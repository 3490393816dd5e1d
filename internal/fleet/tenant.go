package fleet

// Tenant is the record of a tenant's standing and quotas. It is stored in the bucket
// [streams.BucketTenants] under the tenant's name.
type Tenant struct {
	// Suspended reports that the tenant's calls are denied, and Reason why.
	Suspended bool   `json:"suspended,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Quota bounds the tenant's calls; nil: the bounds of all tenants.
	Quota *Quota `json:"quota,omitempty"`
	// Storage bounds the tenant's stored data; nil: the bounds of all tenants.
	Storage *StorageQuota `json:"storage,omitempty"`
}

// StorageQuota bounds a tenant's data in the journal. 0: the bound of all tenants, or no bound in
// the quota of all tenants.
type StorageQuota struct {
	// Events and Bytes are the events, and the bytes of their messages.
	Events int64 `json:"events,omitempty" yaml:"events"`
	Bytes  int64 `json:"bytes,omitempty" yaml:"bytes"`
	// Aggregates is the number of aggregates with events.
	Aggregates int64 `json:"aggregates,omitempty" yaml:"aggregates"`
	// Keys are the commands with idempotency keys of the last seven days.
	Keys int64 `json:"keys,omitempty" yaml:"keys"`
}

// Quota bounds a tenant's calls at each gateway. 0: the bound of all tenants.
type Quota struct {
	// Rate is the average of calls per second, and Burst the number of calls above it.
	Rate  float64 `json:"rate,omitempty"`
	Burst int     `json:"burst,omitempty"`
	// Concurrent is the number of calls in flight, and Streams of response streams.
	Concurrent int `json:"concurrent,omitempty"`
	Streams    int `json:"streams,omitempty"`
}
