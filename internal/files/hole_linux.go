package files

import (
	"errors"
	"io"
	"os"
	"syscall"
)

const seekData = 3 // SEEK_DATA of lseek(2)

// nextData returns the first position from off on where f may hold anything
// but zeros, io.EOF if there is none.
func nextData(f *os.File, off int64) (int64, error) {
	at, err := f.Seek(off, seekData)
	switch {
	case errors.Is(err, syscall.ENXIO):
		return 0, io.EOF
	case errors.Is(err, syscall.EINVAL), errors.Is(err, errors.ErrUnsupported):
		return off, nil // a file system that cannot tell
	}
	return at, err
}
