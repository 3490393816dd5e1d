package sqlite

import (
	"context"
	"os"
	"time"
)

const (
	// maxLog is the size of the write-ahead log in bytes above which it is truncated. SQLite
	// itself starts it anew only when no connection reads from it, which is never while a tenant
	// is read all the time.
	maxLog = 32 << 20
	// truncateWait bounds the wait for connections that read from the log, once it is above its
	// bound. From twice the bound on, new reads wait instead.
	truncateWait = 100 * time.Millisecond
)

// boundLog truncates the write-ahead log if it is above its bound. Apply calls it after a
// commit. What is not achieved now is tried again after the next one.
func (s *Store) boundLog(ctx context.Context) {
	info, err := os.Stat(s.path + "-wal")
	if err != nil || info.Size() <= s.maxLog {
		return
	}
	if info.Size() > 2*s.maxLog {
		s.reading.Lock() // the reads that have begun end within their calls' deadlines
		defer s.reading.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, truncateWait)
	defer cancel()
	var busy, frames, copied int
	// An error leaves the log as it is: the commit before it counts.
	_ = s.write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied)
}
