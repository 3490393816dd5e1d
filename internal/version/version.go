// Package version reports which release of the program runs, and what it was built from.
package version

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// release is set by the linker in release builds:
//
//	go build -ldflags "-X github.com/headgate/headgate/internal/version.release=v0.1.0"
var release string

// Info describes a build.
type Info struct {
	// Version is the release (Semantic Versioning 2.0.0, with "v"), or the version that the go command has derived
	// from version control; "(devel)" if neither is known.
	Version string `json:"version"`
	// Revision is the commit, and Time its time (RFC 3339); "": not known.
	Revision string `json:"revision,omitempty"`
	Time     string `json:"time,omitempty"`
	// Modified reports that the sources differed from the commit.
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Get returns the description of this build.
func Get() Info {
	info := Info{Version: release, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if ok {
		info.Version = cmp.Or(info.Version, build.Main.Version)
		for _, setting := range build.Settings {
			switch setting.Key {
			case "vcs.revision":
				info.Revision = setting.Value
			case "vcs.time":
				info.Time = setting.Value
			case "vcs.modified":
				info.Modified = setting.Value == "true"
			}
		}
	}
	info.Version = cmp.Or(info.Version, "(devel)")
	return info
}

// String returns the description as one line.
func (i Info) String() string {
	text := "headgate " + i.Version
	if i.Revision != "" {
		text += fmt.Sprintf(" (%.12s, %s", i.Revision, i.Time)
		if i.Modified {
			text += ", modified"
		}
		text += ")"
	}
	return text + " " + i.Go + " " + i.Platform
}
