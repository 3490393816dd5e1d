//go:build !race

package backbonetest

// parallel is how many parallel tests run together, unless the flag -parallel is given. Parallel
// tests mostly wait for time to pass: more of them run than the machine has processors.
const parallel = 4
