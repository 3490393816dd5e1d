// Command release builds what a release consists of, from a clean checkout and without a network except for modules:
//
//	go run ./release -version v0.1.0 -out ../dist
//
// For linux and darwin on amd64 and arm64, a static binary in an archive and its SBOM (CycloneDX 1.x, JSON); a
// container image for linux on both, as an OCI layout in an archive, with the SBOM in it; the provenance of these files
// as an in-toto statement; and SHA256SUMS. The digest of the image, which pins it in manifests, is printed. The same
// commit gives the same files: times are those of the commit.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// platforms are what a release is built for.
var platforms = []platform{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

type platform struct{ os, arch string }

// sbomTool makes the SBOMs from the module information in binaries.
const sbomTool = "github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0"

var semantic = regexp.MustCompile(`^v\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`)

func main() {
	version := flag.String("version", "", "the release, such as v0.1.0-rc.1")
	out := flag.String("out", "../dist", "directory of the files; it is created")
	roots := flag.String("roots", "/etc/ssl/certs/ca-certificates.crt", "certificates that the image trusts")
	flag.Parse()
	if err := build(*version, *out, *roots); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func build(version, out, roots string) error {
	if !semantic.MatchString(version) {
		return fmt.Errorf("-version %q is not a semantic version with a v", version)
	}
	out, err := filepath.Abs(out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	text, err := command("..", nil, "git", "log", "-1", "--format=%ct")
	if err != nil {
		return err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil {
		return err
	}
	r := release{version: version, out: out, time: time.Unix(seconds, 0).UTC()}
	if r.roots, err = os.ReadFile(roots); err != nil {
		return err
	}
	for _, p := range platforms {
		if err := r.platform(p); err != nil {
			return fmt.Errorf("%s/%s: %w", p.os, p.arch, err)
		}
	}
	if err := r.image(); err != nil {
		return err
	}
	if err := r.provenance(); err != nil {
		return err
	}
	fmt.Println("image", r.imageDigest)
	return r.sums()
}

// release is a release that is being built.
type release struct {
	version, out string
	time         time.Time
	roots        []byte
	layers       []layer
	files        []string
	imageDigest  string // of the image's index
}

// platform builds the binary, the archive and the SBOM of a platform.
func (r *release) platform(p platform) error {
	work, err := os.MkdirTemp("", "headgate-release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	binary := filepath.Join(work, "headgate")
	flags := "-s -w -X github.com/headgate/headgate/internal/version.release=" + r.version
	if _, err := command("..", []string{"CGO_ENABLED=0", "GOOS=" + p.os, "GOARCH=" + p.arch, "GOFLAGS="},
		"go", "build", "-trimpath", "-mod=readonly", "-ldflags", flags, "-o", binary, "./cmd/headgate"); err != nil {
		return err
	}
	name := fmt.Sprintf("headgate_%s_%s_%s", r.version, p.os, p.arch)
	sbom := filepath.Join(r.out, name+".cdx.json")
	if _, err := command(
		".", []string{"GOFLAGS=-mod=mod"}, "go", "run", sbomTool, "bin", "-json", "-noserial", "-version", r.version,
		"-output", sbom, binary,
	); err != nil {
		return err
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	bill, err := os.ReadFile(sbom)
	if err != nil {
		return err
	}
	entries := []file{{"headgate", 0o755, program}, {"sbom.cdx.json", 0o644, bill}}
	if p.os == "linux" {
		made, err := newLayer(p, r.time,
			append(slices.Clone(entries), file{"etc/ssl/certs/ca-certificates.crt", 0o644, r.roots}))
		if err != nil {
			return err
		}
		r.layers = append(r.layers, made)
	}
	for _, page := range []string{"LICENSE", "README.md", "CHANGELOG.md"} {
		text, err := os.ReadFile(filepath.Join("..", page))
		if err != nil {
			return err
		}
		entries = append(entries, file{page, 0o644, text})
	}
	packed, err := archive(r.time, entries)
	if err != nil {
		return err
	}
	if packed, err = compressed(packed); err != nil {
		return err
	}
	r.files = append(r.files, name+".cdx.json")
	return r.write(name+".tar.gz", packed)
}

// write stores a file of the release.
func (r *release) write(name string, data []byte) error {
	r.files = append(r.files, name)
	return os.WriteFile(filepath.Join(r.out, name), data, 0o644)
}

// sums writes the checksums of all files, as sha256sum -c reads them.
func (r *release) sums() error {
	slices.Sort(r.files)
	var text strings.Builder
	for _, name := range r.files {
		data, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		fmt.Fprintf(&text, "%s  %s\n", hex.EncodeToString(sum[:]), name)
	}
	fmt.Print(text.String())
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(text.String()), 0o644)
}

// command runs a program in a directory and returns its output.
func command(dir string, env []string, name string, args ...string) (string, error) {
	run := exec.Command(name, args...)
	run.Dir, run.Env, run.Stderr = dir, append(os.Environ(), env...), os.Stderr
	out, err := run.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return string(out), nil
}
