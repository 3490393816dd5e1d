//go:build !race

package natstest

// parallel is the number of parallel tests that run at a time, unless the flag -parallel is given.
// They spend most of their time waiting, so it exceeds the number of processors.
const parallel = 4
