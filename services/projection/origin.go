package projection

import (
	"fmt"
	"strconv"
	"strings"
)

// originOf identifies what views are made from: a model revision and the journal's epoch.
func originOf(revision string, epoch int64) string { return fmt.Sprintf("%s@%d", revision, epoch) }

// OfEpoch reports whether views of an origin were made from the journal of an epoch, so that their checkpoint is one
// of its sequences.
func OfEpoch(origin string, epoch int64) bool {
	return strings.HasSuffix(origin, "@"+strconv.FormatInt(epoch, 10))
}
