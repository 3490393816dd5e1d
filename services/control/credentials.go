package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"connectrpc.com/connect/v2"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/internal/credentials"
	"github.com/headgate/headgate/internal/rpc"
	"github.com/headgate/headgate/internal/rpc/response"
	"github.com/headgate/headgate/internal/streams"
	"github.com/headgate/headgate/internal/token"
)

// defaultCredentialPage is the default size of a page of revocations or API keys.
const defaultCredentialPage = 100

// issued are the revocations of tokens and the issued API keys, as this node follows them.
type issued struct {
	revocations *credentials.Store[credentials.Revocation]
	keys        *credentials.Store[credentials.APIKey]
	// revoking and issuing serialize the node's changes, so that it checks the bounds of each one after the
	// one before.
	revoking, issuing                                      sync.Mutex
	refusedRevocations, refusedKeys                        atomic.Int64
	revocationPages, tenantPages, keyPages, tenantKeyPages *token.Numbers
}

// openIssued opens the stores, and loads them.
func (s *Service) openIssued(ctx context.Context, secret []byte) error {
	var err error
	if s.issued.revocations, err = credentials.OpenStore[credentials.Revocation](
		ctx, s.js, streams.BucketRevocations,
	); err != nil {
		return err
	}
	if s.issued.keys, err = credentials.OpenStore[credentials.APIKey](ctx, s.js, streams.BucketAPIKeys); err != nil {
		return err
	}
	s.issued.revocationPages = token.NewNumbers(secret, "control/revocations page", nil)
	s.issued.tenantPages = token.NewNumbers(secret, "control/tenant revocations page", nil)
	s.issued.keyPages = token.NewNumbers(secret, "control/api keys page", nil)
	s.issued.tenantKeyPages = token.NewNumbers(secret, "control/tenant api keys page", nil)
	return errors.Join(s.issued.revocations.Load(ctx), s.issued.keys.Load(ctx))
}

// followIssued follows both stores until ctx ends.
func (s *Service) followIssued(ctx context.Context) {
	var running sync.WaitGroup
	failed := func(bucket string) func(error) {
		return func(err error) {
			s.log.Warn().Err(err).Str("bucket", bucket).Msg("changes are not received; lists may be outdated")
		}
	}
	running.Go(func() { s.issued.revocations.Follow(ctx, func() {}, failed(streams.BucketRevocations)) })
	running.Go(func() { s.issued.keys.Follow(ctx, func() {}, failed(streams.BucketAPIKeys)) })
	running.Wait()
}

// pageOf returns a page of the records that fit, the last changed first, and the token of the next one.
func pageOf[T any, M proto.Message](
	all map[string]credentials.Entry[T], pages *token.Numbers, scope, after string, size int32,
	fits func(T) bool, message func(T) M,
) (page []M, next string, err error) {
	before := ^uint64(0)
	if after != "" {
		if before, err = pages.Parse(scope, after); err != nil {
			return nil, "", connect.NewError(connect.CodeInvalidArgument, "page_token was not issued for this request")
		}
	}
	var list []credentials.Entry[T]
	for _, entry := range all {
		if entry.Revision < before && fits(entry.Value) {
			list = append(list, entry)
		}
	}
	slices.SortFunc(list, func(a, b credentials.Entry[T]) int { return cmp.Compare(b.Revision, a.Revision) })
	most, bytes := int(cmp.Or(size, defaultCredentialPage)), response.NewPage()
	for i, entry := range list {
		item := message(entry.Value)
		if len(page) == most || !bytes.Add(proto.Size(item)) {
			return page, pages.Format(scope, list[i-1].Revision), nil
		}
		page = append(page, item)
	}
	return page, "", nil
}

// tooMany returns the error of a request that would exceed a bound. Nothing has been changed.
func tooMany(reason rpc.ErrorReason, format string, args ...any) error {
	return rpc.WithDetails(connect.Errorf(connect.CodeResourceExhausted, format, args...), rpc.Reason(reason))
}

// kinds of credentials in metrics.
const (
	kindRevocation = "revocation"
	kindAPIKey     = "api_key"
)

var (
	storedDesc = prometheus.NewDesc("headgate_credentials_stored",
		"Stored revocations and API keys, withdrawn, revoked and expired ones included.", []string{"kind"}, nil)
	storedLimitDesc = prometheus.NewDesc("headgate_credentials_limit",
		"The number of revocations and of API keys that are stored at most.", []string{"kind"}, nil)
	storedBytesDesc = prometheus.NewDesc("headgate_credentials_bytes",
		"Bytes of the stored revocations and API keys.", []string{"kind"}, nil)
	storedBytesLimitDesc = prometheus.NewDesc("headgate_credentials_bytes_limit",
		"The bytes of revocations and of API keys that are stored at most.", []string{"kind"}, nil)
	foreignDesc = prometheus.NewDesc("headgate_credentials_foreign",
		"Stored values that control has not written: they have no effect.", []string{"kind"}, nil)
	refusedDesc = prometheus.NewDesc("headgate_credentials_refused_total",
		"Requests to revoke tokens or to issue API keys that this node refused because of a bound.",
		[]string{"kind"}, nil)
)

// Describe implements [prometheus.Collector].
func (i *issued) Describe(descriptions chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		storedDesc, storedLimitDesc, storedBytesDesc, storedBytesLimitDesc, foreignDesc, refusedDesc,
	} {
		descriptions <- desc
	}
}

// Collect implements [prometheus.Collector].
func (i *issued) Collect(metrics chan<- prometheus.Metric) {
	collect := func(kind string, records, bytes, foreign, most, mostBytes int, refused int64) {
		for desc, value := range map[*prometheus.Desc]int{
			storedDesc: records, storedLimitDesc: most, storedBytesDesc: bytes, storedBytesLimitDesc: mostBytes,
			foreignDesc: foreign,
		} {
			metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), kind)
		}
		metrics <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(refused), kind)
	}
	records, bytes, foreign := i.revocations.Size()
	collect(kindRevocation, records, bytes, foreign, credentials.MaxRevocations, credentials.MaxRevocationBytes,
		i.refusedRevocations.Load())
	records, bytes, foreign = i.keys.Size()
	collect(kindAPIKey, records, bytes, foreign, credentials.MaxAPIKeys, credentials.MaxAPIKeyBytes,
		i.refusedKeys.Load())
}
