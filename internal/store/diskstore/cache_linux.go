package diskstore

import (
	"errors"

	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"
)

// dropCache takes what is durable of a block file out of the page cache. A
// block is read some day by another machine, if at all: kept, it would push out
// what people here work with, and cost a page for each 4 KiB that the kernel
// must find and, on a virtual machine, have from its host (docs/adr/0013). It
// is a hint; an error means that nothing was dropped.
func dropCache(f vfs.File) {
	if fd := f.Fd(); fd != vfs.InvalidFd {
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_DONTNEED)
	}
}

// readOnce is readFull, but leaves the page cache as it was: neither does the
// block stay there, nor does it go if others had it there. Where kernel (before
// 6.14) or file system cannot do that, it stays.
func readOnce(f vfs.File, buf []byte, offset int64) error {
	fd := f.Fd()
	for fd != vfs.InvalidFd && len(buf) > 0 {
		n, err := unix.Preadv2(int(fd), [][]byte{buf}, offset, unix.RWF_DONTCACHE)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			break // readFull says what it is
		}
		buf, offset = buf[n:], offset+int64(n)
	}
	return readFull(f, buf, offset)
}
