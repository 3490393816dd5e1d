package chassis

import "net/http"

// grown has next run on a stack that is large enough from the start. net/http answers each
// call of HTTP/2 on a goroutine of its own, whose small stack would be copied again and
// again as the call gets deeper, each time with all of the frames that lie on it.
func grown(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor > 1 {
			growStack(len(r.Method))
		}
		next.ServeHTTP(w, r)
	})
}

// growStack takes as much of the stack as a call does, a moment. It is told anything that
// the compiler does not know.
//
//go:noinline
func growStack(n int) byte {
	var room [6 << 10]byte
	return room[n%len(room)]
}
