package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"time"
)

// Media types of the OCI image specification 1.1.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// file is an entry of an archive.
type file struct {
	name string
	mode int64
	data []byte
}

// layer is the one layer of a platform's image.
type layer struct {
	platform platform
	packed   []byte
	diff     string // the digest of the layer before compression
}

func newLayer(p platform, at time.Time, entries []file) (layer, error) {
	plain, err := archive(at, entries)
	if err != nil {
		return layer{}, err
	}
	packed, err := compressed(plain)
	return layer{platform: p, packed: packed, diff: digest(plain)}, err
}

// archive returns a tar of files and of the directories above them.
func archive(at time.Time, entries []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	var directories []string
	for _, f := range entries {
		var above []string
		for dir := path.Dir(f.name); dir != "." && !slices.Contains(directories, dir); dir = path.Dir(dir) {
			above = append(above, dir)
		}
		slices.Reverse(above)
		for _, dir := range above {
			directories = append(directories, dir)
			if err := w.WriteHeader(&tar.Header{
				Typeflag: tar.TypeDir,
				Name:     dir + "/",
				Mode:     0o755,
				ModTime:  at,
			}); err != nil {
				return nil, err
			}
		}
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     f.name,
			Mode:     f.mode,
			Size:     int64(len(f.data)),
			ModTime:  at,
		}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func compressed(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// blobs are the files of an image, by their names in the archive.
type blobs map[string][]byte

// add adds a blob.
func (b blobs) add(mediaType string, data []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
	b["blobs/sha256/"+d.Digest[len("sha256:"):]] = data
	return d
}

// addJSON adds a value as JSON.
func (b blobs) addJSON(mediaType string, value any) (descriptor, error) {
	data, err := json.Marshal(value)
	return b.add(mediaType, data), err
}

// addManifest adds the manifest of a platform, with its configuration and its layer.
func (b blobs) addManifest(l layer, created time.Time, labels map[string]string) (descriptor, error) {
	config, err := b.addJSON(configType, map[string]any{
		"created":      created.Format(time.RFC3339),
		"os":           l.platform.os,
		"architecture": l.platform.arch,
		"config": map[string]any{
			"User":       "65532:65532", // not root, as distroless images
			"Entrypoint": []string{"/headgate"},
			"Env":        []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"},
			"Labels":     labels,
		},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{l.diff}},
	})
	if err != nil {
		return descriptor{}, err
	}
	manifest, err := b.addJSON(manifestType, map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config,
		"layers": []descriptor{b.add(layerType, l.packed)}, "annotations": labels,
	})
	manifest.Platform = map[string]string{"os": l.platform.os, "architecture": l.platform.arch}
	return manifest, err
}

// image writes the image of all layers' platforms as an OCI layout in an archive, which `docker load`,
// `podman load` and `skopeo copy oci-archive:` read.
func (r *release) image() error {
	image := blobs{}
	labels := map[string]string{
		"org.opencontainers.image.title":   "headgate",
		"org.opencontainers.image.version": r.version,
		"org.opencontainers.image.created": r.time.Format(time.RFC3339),
	}
	var manifests []descriptor
	for _, l := range r.layers {
		manifest, err := image.addManifest(l, r.time, labels)
		if err != nil {
			return err
		}
		manifests = append(manifests, manifest)
	}
	index, err := image.addJSON(indexType,
		map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": manifests, "annotations": labels})
	if err != nil {
		return err
	}
	r.imageDigest = index.Digest
	index.Annotations = map[string]string{
		"org.opencontainers.image.ref.name": r.version,
		"io.containerd.image.name":          "headgate:" + r.version,
	}
	top, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{index}})
	if err != nil {
		return err
	}
	entries := []file{{"oci-layout", 0o644, []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", 0o644, top}}
	for _, name := range slices.Sorted(maps.Keys(image)) {
		entries = append(entries, file{name, 0o644, image[name]})
	}
	packed, err := archive(r.time, entries)
	if err != nil {
		return err
	}
	return r.write("headgate_"+r.version+"_image.oci.tar", packed)
}
