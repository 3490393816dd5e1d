package version

import (
	"runtime"
	"strings"
	"testing"
)

func TestGet_NamesTheReleaseAndThePlatform(t *testing.T) {
	if info := Get(); info.Version == "" || info.Go != runtime.Version() ||
		info.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%+v", info)
	}
	defer func(before string) { release = before }(release)
	release = "v1.2.3"
	if info := Get(); info.Version != "v1.2.3" || !strings.HasPrefix(info.String(), "headgate v1.2.3 ") {
		t.Errorf("%v", info)
	}
}

func TestInfo_StringHasTheCommit(t *testing.T) {
	for want, info := range map[string]Info{
		"headgate v1.0.0 go1.26 linux/amd64": {
			Version:  "v1.0.0",
			Go:       "go1.26",
			Platform: "linux/amd64",
		},
		"headgate v1.0.0 (0123456789ab, 2026-01-02T03:04:05Z) go1.26 linux/amd64": {
			Version:  "v1.0.0",
			Revision: "0123456789abcdef",
			Time:     "2026-01-02T03:04:05Z",
			Go:       "go1.26",
			Platform: "linux/amd64",
		},
		"headgate (devel) (0123456789ab, 2026-01-02T03:04:05Z, modified) go1.26 darwin/arm64": {
			Version:  "(devel)",
			Revision: "0123456789abcdef",
			Time:     "2026-01-02T03:04:05Z",
			Modified: true,
			Go:       "go1.26",
			Platform: "darwin/arm64",
		},
	} {
		if got := info.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
