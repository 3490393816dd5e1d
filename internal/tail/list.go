package tail

// list is a queue of subscriptions, first in, first out. The zero value is empty.
type list struct {
	items []*Subscription
	head  int
}

func (l *list) len() int { return len(l.items) - l.head }

func (l *list) push(s *Subscription) { l.items = append(l.items, s) }

func (l *list) pop() *Subscription {
	s := l.items[l.head]
	l.items[l.head] = nil
	l.head++
	if l.head == len(l.items) {
		l.items, l.head = nil, 0
	} else if l.head >= 1024 && l.head*2 >= len(l.items) {
		l.items = append([]*Subscription(nil), l.items[l.head:]...)
		l.head = 0
	}
	return s
}
