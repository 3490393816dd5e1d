// Package stackgrow grows the stack of a goroutine before a call that needs much of it, in one step.
package stackgrow

import "net/http"

// Handler returns a handler like next that runs on a stack which is large enough from the start.
// net/http answers each call of HTTP/2 on a new goroutine. As the call gets deeper, the
// runtime would copy its small stack several times, each time with all frames on it.
func Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 {
			grow(len(r.Method))
		}
		next.ServeHTTP(w, r)
	})
}

// callStack is how much of the stack a call needs, in bytes.
const callStack = 9 << 10

// grow uses callStack bytes of the stack for a moment. n is any number that the compiler
// does not know, so that it keeps the array.
//
//go:noinline
func grow(n int) byte {
	var room [callStack]byte
	return room[n%len(room)]
}
