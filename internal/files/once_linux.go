package files

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// writeOnce writes as much of b as it can without filling the page cache, and
// returns how much. The kernel begins to write to disk at once, which leaves the
// fsync at the end little to wait for, and forgets the pages then; those of a
// file of many gigabytes would push out what people here work with. Kernels
// before 6.14 and some file systems cannot do that.
func writeOnce(f *os.File, b []byte, off int64) (done int) {
	for done < len(b) {
		n, err := unix.Pwritev2(int(f.Fd()), [][]byte{b[done:]}, off+int64(done), unix.RWF_DONTCACHE)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break // a plain write says what it is
		}
		done += n
	}
	return done
}
