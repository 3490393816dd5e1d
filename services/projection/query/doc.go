// Package query turns what a client asks of a view (an AIP-160 filter, an
// AIP-132 order, a page) into a [Plan]: SQL fragments in which every value is a
// bound parameter and every name is a column of the view.
//
// It knows the view's columns and the dialect, not the database.
//
// Sources: https://google.aip.dev/160, https://google.aip.dev/132,
// https://google.aip.dev/158.
package query
