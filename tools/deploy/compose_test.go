package deploy

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// roles are the roles of the platform. Services of compose and workloads of Kubernetes are named after them.
var roles = []string{"gateway", "aggregate", "projection", "runner", "control"}

// project loads compose.yaml as `docker compose` does, with its checks.
func project(t *testing.T) *types.Project {
	t.Helper()
	dir, err := filepath.Abs("../../deploy/compose")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  dir,
		ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(dir, "compose.yaml")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

func TestCompose_ProcessesAreConfined(t *testing.T) {
	p := project(t)
	for _, role := range roles {
		if _, err := p.GetService(role); err != nil {
			t.Error(err)
		}
	}
	for name, s := range p.Services {
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.Privileged ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s has a writable root, capabilities, or may gain privileges: %+v", name, s.SecurityOpt)
		}
		if s.MemLimit == 0 || s.PidsLimit == 0 {
			t.Errorf("%s may use all memory or processes of the machine", name)
		}
		for _, option := range s.SecurityOpt {
			if strings.Contains(option, "unconfined") {
				t.Errorf("%s: %s", name, option)
			}
		}
		root := s.User == "" || strings.HasPrefix(s.User, "0") || strings.HasPrefix(s.User, "root")
		if name == "volumes" { // makes the others' directories, and has no network and no secret
			if s.NetworkMode != "none" || !slices.Equal(s.CapAdd, []string{"CHOWN", "DAC_READ_SEARCH"}) ||
				len(s.Secrets) > 0 {
				t.Errorf("%s runs as root with more capabilities than it needs", name)
			}
		} else if root || len(s.CapAdd) > 0 {
			t.Errorf("%s runs as %q with the capabilities %v", name, s.User, s.CapAdd)
		}
		if s.Build == nil {
			pinned(t, "compose, "+name, s.Image)
		}
		for _, port := range s.Ports {
			if name != "gateway" {
				t.Errorf("%s publishes port %s on the host", name, port.Published)
			}
		}
	}
	for _, name := range []string{"nats", "postgres"} {
		if s := p.Services[name]; s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			t.Errorf("%s has no health check", name)
		}
	}
}

// A container mounts only the secrets of its role: each seed is mounted once, and secrets.sh creates the file of each
// secret.
func TestCompose_SecretsBelongToOneRole(t *testing.T) {
	p := project(t)
	script, err := os.ReadFile("../../deploy/compose/secrets.sh")
	if err != nil {
		t.Fatal(err)
	}
	shared := []string{"views"} // its password, which PostgreSQL's first start sets
	mounted := map[string]string{}
	for name, s := range p.Services {
		for _, secret := range s.Secrets {
			if before := mounted[secret.Source]; before != "" && !slices.Contains(shared, secret.Source) {
				t.Errorf("%s and %s both mount %s", before, name, secret.Source)
			}
			mounted[secret.Source] = name
			if _, ok := p.Secrets[secret.Source]; !ok {
				t.Errorf("%s mounts %s, which is not defined", name, secret.Source)
			}
		}
	}
	for _, role := range roles {
		if mounted["nats-"+role] != role {
			t.Errorf("the seed of %s is mounted by %q", role, mounted["nats-"+role])
		}
	}
	if mounted["runner.token"] != "runner" || mounted["keys.json"] != "gateway" ||
		mounted["nats-setup"] != "nats-setup" {
		t.Errorf("unexpected mounts of secrets: %v", mounted)
	}
	for name, s := range p.Services {
		for _, volume := range s.Volumes {
			source, err := filepath.Rel(p.WorkingDir, volume.Source)
			if err != nil || !strings.HasPrefix(source, "secrets") {
				continue
			}
			if source != filepath.Join("secrets", "tls", name) || !volume.ReadOnly {
				t.Errorf("%s mounts %s", name, source)
			}
			mounted["tls of "+name] = name
		}
	}
	for _, name := range append([]string{"nats", "nats-setup"}, roles...) {
		if mounted["tls of "+name] == "" {
			t.Errorf("%s has no certificate", name)
		}
	}
	for name, secret := range p.Secrets {
		file := filepath.Base(secret.File)
		if stem, seed := strings.CutSuffix(file, ".nk"); seed {
			file = stem // of a node that the script lists, or the set-up user
			if stem == "setup" {
				continue
			}
		}
		if mounted[name] == "" || !strings.Contains(string(script), strings.TrimSuffix(file, ".conf")) {
			t.Errorf("%s is mounted by %q, but secrets.sh does not create %s", name, mounted[name], secret.File)
		}
	}
}

// A container shares a network with those alone that it calls or that call it, and only the roles that call the
// internet, or are called from it, reach other networks.
func TestCompose_NetworksJoinWhatCallsEachOther(t *testing.T) {
	p := project(t)
	want := map[string][]string{
		"nats":     {"aggregate", "control", "gateway", "nats", "nats-setup", "projection", "runner"},
		"nodes":    {"aggregate", "control", "gateway", "projection", "runner"},
		"views":    {"postgres", "projection"},
		"edge":     {"gateway", "runner"},
		"internet": {"gateway", "runner"},
	}
	got := map[string][]string{}
	for name, s := range p.Services {
		for network := range s.Networks {
			got[network] = append(got[network], name)
			if !p.Networks[network].Internal {
				got["internet"] = append(got["internet"], name)
			}
		}
		if len(s.Networks) == 0 && s.NetworkMode != "none" {
			t.Errorf("%s is in no network", name)
		}
	}
	for network := range got {
		slices.Sort(got[network])
	}
	if !maps.EqualFunc(got, want, slices.Equal) {
		t.Errorf("networks: %v, want %v", got, want)
	}
}

// pinned checks that an image has a tag and a digest.
func pinned(t *testing.T, where, image string) {
	t.Helper()
	name, digest, found := strings.Cut(image, "@sha256:")
	if !found || len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" || !strings.Contains(name, ":") {
		t.Errorf("%s: the image %q has no tag and digest", where, image)
	}
}

func TestDockerfile_ImagesAreNamedByDigest(t *testing.T) {
	text, err := os.ReadFile("../../deploy/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var last []string // the instructions of the last stage, which is the image
	from := 0
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || strings.HasPrefix(line, "#") {
			continue
		}
		if fields[0] == "FROM" {
			from, last = from+1, nil
			pinned(t, "deploy/Dockerfile", fields[1])
		}
		last = append(last, strings.TrimSpace(line))
	}
	// The image has the program alone, which is not root and cannot become it: there is no shell and no setuid file.
	want := []string{"COPY --from=build /headgate /headgate", "USER 65532:65532", `ENTRYPOINT ["/headgate"]`}
	if from != 2 || !strings.Contains(last[0], "distroless/static-") || !slices.Equal(last[1:], want) {
		t.Errorf("%d stages, the last one is %q", from, last)
	}
	// Its builder gets no secrets.
	ignored, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"deploy/*/secrets", ".git", "data", "cluster"} {
		if !slices.Contains(strings.Fields(string(ignored)), want) {
			t.Errorf("the builder gets %s", want)
		}
	}
}

// An image of others has the same digest wherever it is used: it is renewed everywhere, or nowhere.
func TestImages_HaveOneDigest(t *testing.T) {
	digests := map[string]string{}
	note := func(image string) {
		name, _, found := strings.Cut(image, "@")
		if before := digests[name]; before != "" && before != image {
			t.Errorf("%s is %s, too", image, before)
		}
		if found {
			digests[name] = image
		}
	}
	for _, s := range project(t).Services {
		note(s.Image)
	}
	for _, pod := range build(t).pods {
		for _, c := range pod.Spec.Containers {
			note(c.Image)
		}
	}
	if len(digests) != 2 {
		t.Errorf("images: %v, want those of NATS and PostgreSQL", digests)
	}
}
