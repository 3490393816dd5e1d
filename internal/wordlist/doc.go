// Package wordlist holds no code but tests: the repository's prose is in plain technical English
// (docs/glossary.md), tests are named for a subject and a rule, and links of Markdown resolve. The prose is comments
// and messages of Go, comments of protobuf, Markdown, settings, manifests, scripts, and the sources of
// the Control UI. Generated code is not checked.
//
//	go test ./internal/wordlist                         # everything
//	go test ./internal/wordlist -path services/runner   # one folder or file
//	go test ./internal/wordlist -path services/runner -v # with advice
package wordlist
