package main_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/headgate/headgate/contextkit"
)

// generatorsGate names the environment variable that runs the generators of clients, which
// .ci/run sets where the modules and packages of tools/openapi are installed.
const generatorsGate = "HEADGATE_OPENAPI"

// startEcho starts a node that answers each message with itself, and returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	node := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if method, _ := grpc.MethodFromServerStream(stream); !strings.HasPrefix(method, "/shapes.v1.Shapes/") {
			return status.Error(codes.Unimplemented, "not served here") // such as the health protocol
		}
		message := &emptypb.Empty{} // its fields are unknown, and stored
		if err := stream.RecvMsg(message); err != nil {
			return err
		}
		return stream.SendMsg(message)
	}))
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- node.Serve(listener) }()
	t.Cleanup(func() {
		node.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// TestREST_IsAsDescribed has a platform with every service and the test bed of the HTTP edge: the
// examples of docs/rest.md print the output that is shown, the parameters of the OpenAPI document are accepted,
// and the clients that generators make of it compile and call the platform.
func TestREST_IsAsDescribed(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("one client calls one process; other tests cover this under the race detector")
	}
	data := t.TempDir()
	p := start(t, data, nil, "--descriptors", "../../gateway/testdata/shapes.binpb", "--node", "ticker="+startEcho(t),
		"--origin", "https://app.example.com")
	defer p.stop(t)
	code, text, err := get(t.Context(), p.gateway+"/openapi.json", "Authorization", "Bearer "+p.tokens["ACME"])
	if err != nil || code != http.StatusOK {
		t.Fatal(code, err)
	}
	document := filepath.Join(data, "openapi.json")
	if err := os.WriteFile(document, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("docs/rest.md", func(t *testing.T) { p.check(t, examples(t, "../../docs/rest.md", "console")) })
	t.Run("parameters", func(t *testing.T) {
		p.sendsListedParameters(
			t, text, p.tokens["OPERATOR"],
			headgate(t, "token", "--data", data, "--tenant", "acme", "--right", "shapes.read", "--right",
				"shapes.write"),
		)
	})
	token := headgate(t, "token", "--data", data, "--tenant", "acme", "--right", "command.submit", "--right",
		"query.read", "--right", "shapes.read")
	g := generators{root: filepath.Join("..", "..", "tools", "openapi"), dir: t.TempDir(), document: document}
	t.Run("redocly", func(t *testing.T) { g.lint(t) })
	t.Run("openapi-typescript", func(t *testing.T) { g.typeScript(t, p.gateway, token) })
	for name, args := range map[string][]string{
		"oapi-codegen": {
			"oapi", "oapi-codegen", "-generate", "types,client", "-package", "client", "-o", "client.go", document,
		},
		"ogen": {
			"ogen", "ogen", "--config", absolute(t, filepath.Join(g.root, "ogen.yaml")), "--package", "client",
			"--target", ".", document,
		},
	} {
		t.Run(name, func(t *testing.T) { g.goClient(t, args[0], args[1], args[2:], p.gateway, token) })
	}
}

// sendsListedParameters sends each parameter of the document's GETs, whose values need not be
// sensible, and to each path one that is not listed.
func (p *platform) sendsListedParameters(t *testing.T, text, operator, tenant string) {
	t.Helper()
	var document struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name, In, Style string
				Schema          map[string]any
				Content         map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for path, item := range document.Paths {
		for verb, operation := range item {
			filled := path
			for _, parameter := range operation.Parameters {
				if parameter.In == "path" {
					_, value := sampleOf(parameter.Name, "", parameter.Schema)
					filled = strings.Replace(filled, "{"+parameter.Name+"}", url.PathEscape(value), 1)
				}
			}
			call := func(target string, header ...string) (int, string) {
				t.Helper()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel() // a stream
				req, err := http.NewRequestWithContext(ctx, strings.ToUpper(verb), p.gateway+target, nil)
				if err != nil {
					t.Fatal(err)
				}
				for i := 0; i < len(header); i += 2 {
					req.Header.Set(header[i], header[i+1])
				}
				token := operator
				if strings.HasPrefix(path, "/shapes/") {
					token = tenant
				}
				req.Header.Set("Authorization", "Bearer "+token)
				req.Header.Set(contextkit.HeaderTenantID, "acme")
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				sent++
				if res.StatusCode == http.StatusOK {
					return res.StatusCode, "" // a stream does not end
				}
				text, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return res.StatusCode, string(text)
			}
			if strings.Contains(strings.SplitN(path, "/", 3)[1], ".") {
				continue // an RPC, which has no query
			}
			if status, text := call(filled + "?not_listed=1"); status != http.StatusBadRequest ||
				!strings.Contains(text, "not_listed") {
				t.Errorf("%s %s: undocumented parameter: %d %s", verb, filled, status, text)
			}
			if verb != "get" {
				continue // it would have an effect
			}
			for _, parameter := range operation.Parameters {
				target, header := filled, []string(nil)
				switch parameter.In {
				case "query":
					name, value := parameter.Name, `{"@type":"type.googleapis.com/google.protobuf.Empty"}`
					if parameter.Content == nil {
						name, value = sampleOf(name, parameter.Style, parameter.Schema)
					}
					target += "?" + url.Values{name: {value}}.Encode()
				case "header":
					header = []string{parameter.Name, `"a"`}
				}
				if status, text := call(target, header...); status == http.StatusBadRequest &&
					(strings.Contains(text, "query parameter: ") || strings.Contains(text, "path: ")) ||
					status == http.StatusForbidden {
					t.Errorf("%s %s %v: %d %s", verb, target, header, status, text)
				}
			}
		}
	}
	if sent < 500 {
		t.Errorf("%d parameters documented", sent)
	}
}

// sampleOf returns the name in the query and a text of a value of a parameter.
func sampleOf(name, style string, schema map[string]any) (in, value string) {
	if schema["type"] == "array" {
		schema = schema["items"].(map[string]any)
	}
	if style == "deepObject" {
		schema, in = schema["additionalProperties"].(map[string]any), name+"[1]"
		if strings.HasSuffix(name, "by_flag") {
			in = name + "[true]"
		}
	} else {
		in = name
	}
	if schema["$ref"] != nil { // an enumeration
		return in, "0"
	}
	switch schema["type"] {
	case "boolean":
		return in, "true"
	case "integer", "number":
		return in, "1"
	}
	switch pattern, _ := schema["pattern"].(string); {
	case schema["format"] == "date-time":
		return in, "2026-01-31T12:00:00Z"
	case schema["format"] == "int64", schema["format"] == "uint64":
		return in, "9007199254740993"
	case schema["format"] == "byte":
		return in, "AQID"
	case strings.HasSuffix(pattern, "s$"):
		return in, "1.5s"
	case strings.HasSuffix(name, "tenant_id"):
		return in, "acme"
	}
	return in, "text"
}

// generators run the tools that tools/openapi pins on a document.
type generators struct {
	root     string // tools/openapi
	dir      string // for what they make
	document string
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// output runs a program in a directory and returns what it prints.
func output(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s\n%s", name, args, err, out, complaints.String())
	}
	return string(out)
}

// npm returns the directory of the npm tools; it skips the test where there are none.
func (g *generators) npm(t *testing.T) string {
	t.Helper()
	if os.Getenv(generatorsGate) == "" {
		t.Skipf("generators are off: set %s=1", generatorsGate)
	}
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("Node and npm are not installed")
	}
	modules := absolute(t, filepath.Join(g.root, "node_modules"))
	if _, err := os.Stat(modules); err != nil {
		t.Fatal("the packages are not installed: run npm ci in tools/openapi")
	}
	return modules
}

func (g *generators) lint(t *testing.T) {
	modules := g.npm(t)
	output(t, g.root, filepath.Join(modules, ".bin", "redocly"), "lint", "--config", "redocly.yaml", g.document)
}

func (g *generators) typeScript(t *testing.T, url, token string) {
	modules := g.npm(t)
	dir := filepath.Join(g.dir, "typescript")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(g.root, "testdata", "typescript"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	output(t, dir, filepath.Join(modules, ".bin", "openapi-typescript"), g.document, "-o", "api.d.ts")
	output(t, dir, filepath.Join(modules, ".bin", "tsc"), "-p", ".")
	g.compare(t, output(t, dir, "node", "client.js", url, token), `submit opened 1 false
submit opened 1 true
refused 400 failed_precondition the balance does not cover the amount
query Cyd & Söhne 5
unchanged 304
watch typescript
shapes ["a/b c","9007199254740993",true,"COLOR_RED",["a,b","c&d"],{"a b":"c=d"}]
`)
}

// goClient generates a client with a tool, builds the program of that name that uses it, and runs
// it.
func (g *generators) goClient(t *testing.T, name, tool string, args []string, url, token string) {
	if os.Getenv(generatorsGate) == "" {
		t.Skipf("generators are off: set %s=1", generatorsGate)
	}
	dir := filepath.Join(g.dir, name)
	if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(g.root, "testdata", name))); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"go.mod", "go.sum"} {
		text, err := os.ReadFile(filepath.Join(g.root, file))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, file), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	client := filepath.Join(dir, name, "client")
	if err := os.Mkdir(client, 0o700); err != nil {
		t.Fatal(err)
	}
	output(t, client, "go", append([]string{"tool", tool}, args...)...)
	output(t, dir, "go", "build", "-trimpath", "-o", "program", "./"+name) // its packages come from the build cache
	unchanged, owner := "304", "[map[balance:5 owner:Ada & Söhne]]"
	media, red := "application/x-ndjson", "COLOR_RED"
	if name == "ogen" {
		unchanged, owner, media = "true", `"Bob & Söhne" 5`, "ogen true"
	}
	g.compare(t, output(t, dir, filepath.Join(dir, "program"), url, token), `submit opened 1 false
submit opened 1 true
refused 400 failed_precondition the balance does not cover the amount
query `+owner+`
unchanged `+unchanged+`
watch `+media+`
shapes a/b c 9007199254740993 true `+red+` [a,b c&d] map[a b:c=d]
`)
}

func (g *generators) compare(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("the client prints\n%s\nwant\n%s", got, want)
	}
}
