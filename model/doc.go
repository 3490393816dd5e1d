// Package model implements the domain language: a tenant's domain as one YAML document with aggregates (commands,
// their rules and the events that they emit), views (projections of events into tables) and workflows (steps across
// aggregates).
//
// [Parse] checks a document as a whole before it is used: it compiles the expressions and reports every mistake with
// its line. At run time, CEL expressions are evaluated over plain JSON values, each within a cost limit. Evaluation
// is pure, so that a replay yields the same result.
//
// The package is independent of storage and transport.
//
// Sources: CEL (https://cel.dev), JSON Schema 2020-12.
package model
