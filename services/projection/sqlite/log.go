package sqlite

import (
	"context"
	"os"
	"time"
)

const (
	// maxLog is the size of the write-ahead log in bytes above which it is truncated. SQLite itself restarts the log
	// only when no connection reads from it, which never happens while a tenant is read continuously.
	maxLog = 64 << 20
	// truncateWait bounds the wait for connections that read from the log, once it exceeds its bound. From twice the
	// bound on, new reads wait instead.
	truncateWait = 100 * time.Millisecond
	// pageBytes is the size of a page of the file.
	pageBytes = 4096
)

// boundLog truncates the write-ahead log if it exceeds its bound. Apply calls it after a commit. If it fails, the
// next commit retries.
func (s *Store) boundLog(ctx context.Context) {
	// Do not stat the file after each commit: a commit takes two pages or more.
	if s.written += 2 * pageBytes; s.written < s.maxLog/8 {
		return
	}
	s.written = 0
	info, err := os.Stat(s.path + "-wal")
	if err != nil || info.Size() <= s.maxLog {
		return
	}
	if info.Size() > 2*s.maxLog {
		s.reading.Lock() // running reads end within their calls' deadlines
		defer s.reading.Unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, truncateWait)
	defer cancel()
	var busy, frames, copied int
	// An error leaves the log unchanged; the commit before is durable.
	_ = s.write.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &copied)
}
