package aggregate

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"

	aggregatev1 "github.com/headgate/headgate/gen/aggregate/gateway/v1"
	"github.com/headgate/headgate/internal/journal"
)

// commandRef returns the command's key and a fingerprint of its request, which tells a retry from
// another command under the same key.
func commandRef(req *aggregatev1.SubmitRequest) journal.CommandRef {
	if req.GetIdempotencyKey() == "" {
		return journal.CommandRef{}
	}
	payload, _ := json.Marshal(req.GetPayload().AsMap()) // sorted members; a Struct always encodes
	expected := "any"
	if req.ExpectedVersion != nil {
		expected = strconv.FormatInt(req.GetExpectedVersion(), 10)
	}
	var text []byte
	for _, part := range []string{
		req.GetAggregateType(), req.GetAggregateId(), req.GetCommand(), expected, string(payload),
	} {
		text = append(append(strconv.AppendInt(text, int64(len(part)), 10), ':'), part...)
		text = append(text, ';')
	}
	sum := sha256.Sum256(text)
	return journal.CommandRef{IdempotencyKey: req.GetIdempotencyKey(), Fingerprint: hex.EncodeToString(sum[:16])}
}
