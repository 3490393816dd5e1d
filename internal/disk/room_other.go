//go:build !linux && !darwin

package disk

// Full reports whether err means that the file system is full; on this system it is always false.
func Full(error) bool { return false }

// Room returns the bytes that this process may still write to the file system of dir. ok is false: this system does
// not report them.
func Room(string) (free uint64, ok bool, err error) { return 0, false, nil }
