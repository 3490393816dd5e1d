// Package models stores the platform's model documents and their order.
//
// The order ([Store.Place]) is the same for every node, whether a model was applied or read from a
// file.
package models
