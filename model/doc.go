// Package model is a tenant's domain in one YAML document: aggregates (what
// commands there are, when they are allowed and what follows), views (what
// events are projected into) and workflows (what happens across aggregates).
//
// A document is checked as a whole by [Parse] before anything uses it: every
// mistake is reported with its line, and expressions are compiled. At run time
// the values are CEL expressions over plain JSON values, each evaluated under a
// cost limit; evaluation is pure, so that a replay gives what the first time
// gave.
//
// The package knows nothing of storage or transport.
//
// Sources: CEL (https://cel.dev), JSON Schema 2020-12.
package model
