//go:build race

package natstest

// parallel is how many parallel tests run together: under the race detector, one per processor is
// as much as the machine can do.
const parallel = 1
