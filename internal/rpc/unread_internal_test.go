package rpc

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// slowWriter is a client that takes some time for each part of an answer.
type slowWriter struct {
	*httptest.ResponseRecorder

	answer *answering
	takes  time.Duration
	cut    bool // the write deadline has passed
}

// Write implements [io.Writer].
func (w *slowWriter) Write(p []byte) (int, error) {
	w.answer.check(w.answer.began.Add(w.takes))
	if w.cut {
		return 0, errors.New("i/o timeout")
	}
	return w.ResponseRecorder.Write(p)
}

// SetWriteDeadline is that of [http.ResponseController].
func (w *slowWriter) SetWriteDeadline(deadline time.Time) error {
	w.cut = !deadline.IsZero() && deadline.Before(time.Now())
	return nil
}

func TestUnread_SlowClientsThatReadAreNotCutOff(t *testing.T) {
	for takes, want := range map[time.Duration]error{29 * time.Second: nil, 30 * time.Second: ErrUnread} {
		counted := 0
		a := &answering{}
		w := &slowWriter{ResponseRecorder: httptest.NewRecorder(), answer: a, takes: takes}
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		a.begin(request.Context(), w, &writeBounds{30 * time.Second, func() { counted++ }}, false)
		if n, err := a.Write(make([]byte, 10*writePart)); !errors.Is(err, want) || err == nil && n != 10*writePart {
			t.Errorf("parts that take %v: %d bytes, %v; want %v", takes, n, err, want)
		}
		if _, err := a.Write(nil); !errors.Is(err, want) {
			t.Errorf("parts that take %v: the next write: %v, want %v", takes, err, want)
		}
		if cut := want != nil; cut != (counted == 1) {
			t.Errorf("parts that take %v: %d answers are counted", takes, counted)
		}
		a.end()
	}
}
