// Package version says which build of the agent this is.
package version

import "runtime/debug"

// Version is the release, set by the linker for a release build.
var Version = "dev"

// String returns the release and, where the build knows it, the commit.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return Version + " (" + s.Value[:12] + ")"
		}
	}
	return Version
}
