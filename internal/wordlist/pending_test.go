package wordlist

// pendingPaths are folders, without subfolders, and files that are not rewritten yet. Remove a
// line with the rewrite that makes its folder clean; add none, except for a folder that moves.
var pendingPaths = []string{
	// The Control UI.

}
