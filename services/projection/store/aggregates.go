package store

import "strings"

// Aggregate is an aggregate in a tenant's index, which has each aggregate by its first event.
type Aggregate struct {
	// Type and ID identify the aggregate.
	Type, ID string
	// Event is the type of its first event, and Created when that was decided, in RFC 3339.
	Event, Created string
}

// entry returns the aggregate as the index stores it: one text, since the number of columns decides what it costs to
// apply an aggregate's first event. The order of entries of a type is that of the ids, since a space is less than the
// characters of an id.
func (a *Aggregate) entry() string { return a.Type + "/" + a.ID + " " + a.Created + " " + a.Event }

// AggregateOf returns the aggregate of an entry of the index.
func AggregateOf(entry string) (a Aggregate) {
	var name string
	name, entry, _ = strings.Cut(entry, " ")
	a.Type, a.ID, _ = strings.Cut(name, "/")
	a.Created, a.Event, _ = strings.Cut(entry, " ")
	return a
}

// Lookup selects aggregates of a type whose ids begin with a prefix, by id.
type Lookup struct {
	Type, Prefix string
	// After is the last id of the page before; "": the first page.
	After string
	// Limit bounds the entries that are read; 0: none are.
	Limit int
}

// Range returns the first of the entries, and the text before which they end. Ids are ASCII letters, digits, hyphens
// and underscores, and texts are compared byte by byte.
func (l Lookup) Range() (from, before string) {
	from, before = l.Type+"/"+l.Prefix, l.Type+"/"+l.Prefix+"\x7f"
	if l.After != "" {
		from = l.Type + "/" + l.After + "!" // the character after the space
	}
	return from, before
}

// Indexed is how far the index of a tenant's aggregates covers the journal.
type Indexed struct {
	// Sequence is the journal sequence up to which it is complete, and Applied the checkpoint of the views in step.
	// They are equal unless a version without an index has applied events.
	Sequence, Applied uint64
}

// Complete reports whether the index has all aggregates up to the views' checkpoint.
func (i Indexed) Complete() bool { return i.Sequence >= i.Applied }

// filling is a part of the journal that is added to an index that lags.
type filling struct {
	after, to uint64
	all       []string // entries
}

// Begin adds an aggregate that begins with an event after the checkpoint, in the journal's order. It is discarded if
// the index does not reach up to the checkpoint, and is then added by [Batch.Fill].
func (b *Batch) Begin(a Aggregate) { b.begun = append(b.begun, a.entry()) }

// Fill adds the aggregates that begin with the events after one sequence up to another, which is at most the
// checkpoint, to an index that reaches up to the former; another index does not change.
func (b *Batch) Fill(after, to uint64, all []Aggregate) {
	b.fill = filling{after: after, to: to, all: make([]string, len(all))}
	for n := range all {
		b.fill.all[n] = all[n].entry()
	}
}

// Fills reports whether [Batch.Fill] was called.
func (b *Batch) Fills() bool { return b.fill.to > 0 }

// Index returns the entries to add to an index, and the sequence up to which it is complete then. It is for
// implementations of [Store].
func (b *Batch) Index(indexed Indexed) (entries []string, to uint64) {
	switch {
	case b.fill.to > indexed.Sequence && b.fill.after == indexed.Sequence:
		return b.fill.all, min(b.fill.to, indexed.Applied)
	case b.to.Sequence > indexed.Applied && indexed.Sequence == indexed.Applied:
		return b.begun, b.to.Sequence
	}
	return nil, indexed.Sequence
}
