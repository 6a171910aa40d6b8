package files

import (
	"bytes"
	"context"
	"fmt"

	"atoll.example/atoll/internal/seal"
)

// rereads is how often a put reads a file again before it gives up. Chosen by us.
const rereads = 3

// unmixed makes sure that what was sent was in the file at one time. A file that
// is written and gets its mtime back looks by size and mtime as before, but its
// ctime has moved. So it has if the file was only renamed, linked or given other
// rights: then it is read again, and has to be what was sent.
func (u *upload) unmixed(ctx context.Context, sent func() (isSent, error)) error {
	if u.src.file == nil {
		return nil
	}
	was := ctime(u.src.info)
	for try := 0; ; try++ {
		info, err := u.src.unchanged()
		if err != nil || ctime(info) == was {
			return err
		}
		if try == rereads {
			return fmt.Errorf("%w: something writes, renames, links it or sets its rights again and again", ErrChanged)
		}
		was = ctime(info)
		same, err := sent()
		if err != nil {
			return err
		}
		if err := u.reread(ctx, same); err != nil {
			return err
		}
	}
}

// isSent reports whether a chunk is what was sent for it.
type isSent func(index int64, plain []byte) bool

func (u *upload) reread(ctx context.Context, same isSent) error {
	u.meter.restart("comparing")
	buf := make([]byte, u.c.cfg.ChunkSize)
	for index := int64(0); ; index++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := u.src.read(buf, index)
		if err != nil || n == 0 {
			return err
		}
		if !same(index, buf[:n]) {
			return fmt.Errorf("%w: other bytes than were sent, though of the same size and time", ErrChanged)
		}
		u.meter.add(int64(n), 0, true)
	}
}

// acknowledged tells by the journal which chunks were sent. It has them all once
// they are collected.
func (u *upload) acknowledged() (isSent, error) {
	j, err := u.journal.read()
	if err != nil {
		return nil, err
	}
	block := make([]byte, 0, u.c.cfg.ChunkSize+seal.Overhead)
	salt := uint8(0)
	return func(index int64, plain []byte) bool {
		a, ok := j.acked[index]
		if !ok || int(a.length) != len(plain) {
			return false
		}
		if a.hole {
			return len(bytes.Trim(plain, "\x00")) == 0
		}
		for range salts { // from that of the chunk before, which is mostly that of this one
			if seal.BlockGUID(seal.Reseal(block, plain, salt, a.read)) == a.guid {
				return true
			}
			salt++
		}
		return false
	}, nil
}
