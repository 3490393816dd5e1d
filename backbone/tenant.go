package backbone

// Tenant is what is known of a tenant beside the configuration. It stands in the
// bucket [BucketTenants] under its name.
type Tenant struct {
	// Suspended says that the tenant's calls are refused; Reason why.
	Suspended bool   `json:"suspended,omitempty"`
	Reason    string `json:"reason,omitempty"`
	// Quota bounds the tenant's calls; nil: as all others.
	Quota *Quota `json:"quota,omitempty"`
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
