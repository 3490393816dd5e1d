// Package query compiles a client's query of a view (an AIP-160 filter, an AIP-132 order, a page) into a [Plan]: SQL
// fragments in which every value is a bound parameter and every name is a column of the view.
//
// It depends on the view's columns and the SQL dialect, not on a database.
//
// Sources: https://google.aip.dev/160, https://google.aip.dev/132, https://google.aip.dev/158.
package query
