package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Types of an in-toto statement (https://github.com/in-toto/attestation, Statement v1) and of SLSA's provenance
// (https://slsa.dev/spec/v1.1/provenance).
const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	repository    = "https://github.com/headgate/headgate"
	buildType     = repository + "/tools/release@v1"
)

// resource is a ResourceDescriptor of in-toto.
type resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// statement describes from what and how the files of a release were built. It is not signed; the publisher
// of the release signs it, for example with cosign attest-blob.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     provenance `json:"predicate"`
}

type provenance struct {
	BuildDefinition struct {
		BuildType            string            `json:"buildType"`
		ExternalParameters   map[string]string `json:"externalParameters"`
		ResolvedDependencies []resource        `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	RunDetails struct {
		Builder struct {
			ID      string            `json:"id"`
			Version map[string]string `json:"version"`
		} `json:"builder"`
	} `json:"runDetails"`
}

// provenance writes the statement on the files so far. The same commit and version of Go give the same statement.
func (r *release) provenance() error {
	commit, err := command("..", nil, "git", "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	dirty, err := command("..", nil, "git", "status", "--porcelain", "--untracked-files=no")
	if err != nil {
		return err
	}
	if dirty != "" {
		return fmt.Errorf("the checkout has changes, which no commit describes:\n%s", dirty)
	}
	made, err := r.statement(strings.TrimSpace(commit), runtime.Version())
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		return err
	}
	return r.write("headgate_"+r.version+".provenance.json", append(text, '\n'))
}

// statement returns the statement on the files so far, and on the image.
func (r *release) statement(commit, goVersion string) (statement, error) {
	s := statement{Type: statementType, PredicateType: predicateType}
	for _, name := range slices.Sorted(slices.Values(r.files)) {
		data, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return s, err
		}
		s.Subject = append(s.Subject, resource{Name: name, Digest: sha256Of(digest(data))})
	}
	image := resource{Name: "ghcr.io/headgate/headgate:" + r.version, Digest: sha256Of(r.imageDigest)}
	s.Subject = append(s.Subject, image)
	build := &s.Predicate.BuildDefinition
	build.BuildType = buildType
	build.ExternalParameters = map[string]string{"version": r.version, "command": "task release VERSION=" + r.version}
	build.ResolvedDependencies = []resource{
		{URI: "git+" + repository + "@" + commit, Digest: map[string]string{"gitCommit": commit}},
		{Name: "go", URI: "https://go.dev/dl/#" + goVersion},
		{Name: "roots", Digest: sha256Of(digest(r.roots))},
	}
	s.Predicate.RunDetails.Builder.ID = buildType
	s.Predicate.RunDetails.Builder.Version = map[string]string{"go": goVersion}
	return s, nil
}

// sha256Of returns a digest "sha256:…" as in-toto has it.
func sha256Of(digest string) map[string]string {
	return map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}
}
