package journal

import "testing"

// A message that is declared no event while the journal is read is not listed again by that reading.
func TestUnreadable_DeclaredDuringAReadingIsNotListed(t *testing.T) {
	var u unreadable
	first, second := &UnreadableError{Sequence: 1}, &UnreadableError{Sequence: 2}
	lists := func(want int) {
		t.Helper()
		if listed, count := u.list(); len(listed) != want || count != want {
			t.Errorf("%d messages are listed, %d counted, want %d", len(listed), count, want)
		}
	}
	u.find(first)
	u.find(second)
	u.read()
	lists(2)
	u.drop(first) // the next reading has begun before, and does not know of it
	u.find(first)
	u.find(second)
	lists(1)
	u.read()
	lists(1)
	u.find(first) // the declaration was revoked
	u.read()
	lists(1)
}
