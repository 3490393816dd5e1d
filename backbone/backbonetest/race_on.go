//go:build race

package backbonetest

// parallel is how many parallel tests run together: under the race detector, one per processor is
// as much as the machine can do.
const parallel = 1
