package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/contextkit"
	projectionv1 "github.com/headgate/headgate/gen/projection/gateway/v1"
	"github.com/headgate/headgate/gen/projection/gateway/v1/gatewayv1connect"
)

// call sends a request and reads the whole response.
type call func(ctx context.Context) error

// jsonCall returns a call that posts JSON. A response with fewer than least bytes is an error.
func jsonCall(client *http.Client, url, token, body string, least int64) call {
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(body)))
		if err != nil {
			return err
		}
		req.Header["Content-Type"] = []string{"application/json"}
		req.Header["Authorization"] = []string{"Bearer " + token}
		req.Header.Set(contextkit.HeaderTenantID, "acme")
		res, err := client.Do(req)
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, res.Body)
		_ = res.Body.Close() // it has been read
		if err != nil {
			return err
		}
		if res.StatusCode != http.StatusOK || n < least {
			return fmt.Errorf("%s answers %d with %d bytes", url, res.StatusCode, n)
		}
		return nil
	}
}

// grpcCall returns a call of the query by gRPC. A response with fewer than least bytes is an error.
func grpcCall(addr, token, view string, least int) (call, func(), error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	request, err := proto.Marshal(&projectionv1.QueryRequest{TenantId: "acme", View: view})
	if err != nil {
		return nil, nil, err
	}
	return func(ctx context.Context) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, contextkit.HeaderTenantID, "acme")
		var out []byte
		if err := conn.Invoke(
			ctx, gatewayv1connect.QueryServiceQueryProcedure, request, &out, grpc.ForceCodecV2(raw{}),
			experimental.AcceptCompressors(plainName),
		); err != nil {
			return err
		}
		if len(out) < least {
			return fmt.Errorf("%s answers %d bytes", addr, len(out))
		}
		return nil
	}, func() { _ = conn.Close() }, nil
}

// tolerated is the share of calls that may fail without ending the measurement. They are not counted.
const tolerated = 0.01

// saturate sends calls without pauses, one at a time per caller, and returns the number of answered calls.
func saturate(ctx context.Context, do call, callers int, length time.Duration) (int64, error) {
	until := time.Now().Add(length)
	var made, failed atomic.Int64
	var group errgroup.Group
	for range callers {
		group.Go(func() error {
			for time.Now().Before(until) {
				if err := do(ctx); err == nil {
					made.Add(1)
				} else if lost := failed.Add(1); float64(lost) > 10+tolerated*float64(made.Load()) {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return made.Load(), err
}

// newHistogram returns a histogram of times up to a minute, in microseconds.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
}

// ms returns a quantile of times in milliseconds.
func ms(times *hdrhistogram.Histogram, quantile float64) float64 {
	return float64(times.ValueAtQuantile(quantile)) / 1000
}

// paced sends calls at a rate that does not depend on the responses, and records the time of each response since its
// call was due: a stall counts for all calls that it delayed (Gil Tene's coordinated omission).
func paced(
	ctx context.Context, do call, callers int, perSecond float64, length time.Duration,
) (*hdrhistogram.Histogram, error) {
	due := make(chan time.Time, callers)
	result := newHistogram()
	var mu sync.Mutex
	var group errgroup.Group
	for range callers {
		group.Go(func() error {
			own := newHistogram()
			var failed error
			lost, made := 0, 0
			for at := range due {
				if failed != nil {
					continue // the others continue at the same rate
				}
				made++
				if err := do(ctx); err != nil {
					if lost++; float64(lost) > 10+tolerated*float64(made) {
						failed = err
					}
				}
				_ = own.RecordValue(max(time.Since(at).Microseconds(), 1)) // within the range
			}
			mu.Lock()
			defer mu.Unlock()
			result.Merge(own)
			return failed
		})
	}
	began := time.Now()
	step := time.Duration(float64(time.Second) / perSecond)
	for next := began; next.Sub(began) < length; next = next.Add(step) {
		if wait := time.Until(next); wait > 0 {
			timer := time.NewTimer(wait)
			<-timer.C
		}
		due <- next
	}
	close(due)
	return result, group.Wait()
}
