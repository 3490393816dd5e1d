package contextkit

import "strconv"

// MaxDepth is the largest depth that the contract carries; more is written as MaxDepth.
const MaxDepth = 1_000_000

// formatDepth returns the text of a depth, "" for 0, which is not written.
func formatDepth(depth int) string {
	if depth <= 0 {
		return ""
	}
	return strconv.Itoa(min(depth, MaxDepth))
}

// parseDepth returns the depth in a header's values, 0 for none and for what cannot be read.
func parseDepth(values []string) int {
	if len(values) != 1 || len(values[0]) > len("1000000") {
		return 0
	}
	depth, err := strconv.Atoi(values[0])
	if err != nil || depth < 0 {
		return 0
	}
	return min(depth, MaxDepth)
}
