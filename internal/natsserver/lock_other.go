//go:build !unix

package natsserver

import "os"

// lockFile does nothing where the system has no such lock.
func lockFile(*os.File) error { return nil }
