// Package traffic counts the calls of gateways in windows of time, for the platform and for the tenants with the most.
//
// A [Recorder] counts the calls of one gateway. A [History] merges the windows that gateways announce, each once. An
// announcement has the last window and, in turn, an earlier short and an earlier long one: a control node that starts
// has the last hour after four minutes and the last day after five, without a store.
//
// Everything is bounded: windows, tenants per window, nodes per window. Tenants beyond the bound are part of the total
// alone. A window of which no node has reported is absent, not zero.
package traffic
