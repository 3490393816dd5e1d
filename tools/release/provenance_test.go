package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The statement has the digest of each file of a release, the digest of the image's index, and the commit.
func TestStatement_HasDigestsAndCommit(t *testing.T) {
	out := t.TempDir()
	r := release{
		version: "v1.2.3",
		out:     out,
		time:    time.Unix(1, 0),
		roots:   []byte("roots"),
	}
	made, err := newLayer(platform{"linux", "amd64"}, r.time, []file{{"headgate", 0o755, []byte("program")}})
	if err != nil {
		t.Fatal(err)
	}
	r.layers = []layer{made}
	if err := errors.Join(r.write("b.tar.gz", []byte("b")), r.write("a.cdx.json", []byte("a")), r.image()); err != nil {
		t.Fatal(err)
	}
	s, err := r.statement("0123456789abcdef0123456789abcdef01234567", "go1.26.7")
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"_type":"https://in-toto.io/Statement/v1"`, `"predicateType":"https://slsa.dev/provenance/v1"`,
		`{"name":"a.cdx.json","digest":{"sha256":"ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"}}`,
		`{"name":"b.tar.gz","digest":{"sha256":"3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"}}`,
		`"gitCommit":"0123456789abcdef0123456789abcdef01234567"`, `"version":{"go":"go1.26.7"}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("statement %s lacks %s", text, want)
		}
	}
	packed, err := os.ReadFile(filepath.Join(out, "headgate_v1.2.3_image.oci.tar"))
	if err != nil {
		t.Fatal(err)
	}
	index := ""
	for archive := tar.NewReader(bytes.NewReader(packed)); index == ""; {
		header, err := archive.Next()
		if err != nil {
			t.Fatal(err)
		}
		if header.Name == "index.json" {
			text, err := io.ReadAll(archive)
			if err != nil {
				t.Fatal(err)
			}
			index = string(text)
		}
	}
	// Its processes are not root, and it has nothing but the program.
	if want := `"config":{"Entrypoint":["/headgate"],"Env":["SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],` +
		`"Labels":{`; !bytes.Contains(packed, []byte(want)) ||
		!bytes.Contains(packed, []byte(`"User":"65532:65532"}`)) {
		t.Error("the image's configuration names another user or program")
	}
	image := s.Subject[len(s.Subject)-1]
	if image.Name != "ghcr.io/headgate/headgate:v1.2.3" ||
		!strings.Contains(index, `"digest":"sha256:`+image.Digest["sha256"]+`"`) {
		t.Errorf("image %+v, want the digest %s of its index", image, index)
	}
}
