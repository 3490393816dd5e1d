package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"os"
)

const (
	walHeader   = 32
	frameHeader = 24
	// walMagic is the log's magic number; its last bit indicates that checksums are big-endian.
	walMagic = 0x377f0682
)

// errLog reports that a write-ahead log has content that SQLite has not written.
var errLog = errors.New("its write-ahead log is damaged")

// damagedLog returns [errLog] if a process cannot have left the write-ahead log in this state: its header is invalid,
// or frames of the same log follow an invalid one. SQLite would ignore the invalid part and what follows it, although
// their pages may already be in the file, and show a mixture. A crash may leave incomplete frames at the end of a
// log; that is not damage.
//
// Source: https://sqlite.org/fileformat2.html#the_write_ahead_log.
func damagedLog(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return nil // there is none, or opening the database reports the error
	}
	defer func() { _ = file.Close() }() // the file is only read
	in := bufio.NewReaderSize(file, 1<<20)
	header := make([]byte, walHeader)
	switch n, err := io.ReadFull(in, header); {
	case n == 0 && errors.Is(err, io.EOF):
		return nil // empty, as after a checkpoint
	case err != nil:
		return errLog
	}
	magic, pageSize := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[8:])
	if magic&^1 != walMagic || pageSize < 512 || pageSize > 65536 || pageSize&(pageSize-1) != 0 {
		return errLog
	}
	sum := checksum{order: binary.LittleEndian}
	if magic&1 == 1 {
		sum.order = binary.BigEndian
	}
	sum.add(header[:24])
	if !sum.is(header[24:]) {
		return errLog
	}
	frame, salts, invalid := make([]byte, frameHeader+int(pageSize)), [8]byte(header[16:24]), false
	for {
		if _, err := io.ReadFull(in, frame); err != nil {
			return nil // the end, or an incomplete frame
		}
		if [8]byte(frame[8:16]) != salts {
			if !invalid {
				return nil // left over from before the log was restarted
			}
			continue
		}
		before := sum
		sum.add(frame[:8])
		sum.add(frame[frameHeader:])
		if !invalid && sum.is(frame[16:24]) {
			continue
		}
		if invalid {
			return errLog // a frame of this log follows an invalid one
		}
		invalid, sum = true, before
	}
}

// checksum is the rolling checksum of a log.
type checksum struct {
	order  binary.ByteOrder
	s1, s2 uint32
}

// add adds bytes; their number must be a multiple of eight.
func (c *checksum) add(data []byte) {
	for ; len(data) >= 8; data = data[8:] {
		c.s1 += c.order.Uint32(data) + c.s2
		c.s2 += c.order.Uint32(data[4:]) + c.s1
	}
}

// is reports whether the checksum equals the stored bytes, which are big-endian.
func (c *checksum) is(stored []byte) bool {
	return c.s1 == binary.BigEndian.Uint32(stored) && c.s2 == binary.BigEndian.Uint32(stored[4:])
}
