//go:build race

package main_test

// buildFlags build the program as .ci/run builds the tests.
var buildFlags = []string{
	"-race",
	"-gcflags=modernc.org/sqlite/lib=-race=false -d=checkptr=0",
	"-gcflags=modernc.org/libc=-race=false -d=checkptr=0",
}
