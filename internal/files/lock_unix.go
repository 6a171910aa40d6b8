//go:build unix && !solaris && !illumos && !aix

package files

import (
	"errors"
	"os"
	"syscall"
)

// lock makes f ours until it is closed, or returns ErrInUse.
func lock(f *os.File) error {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return ErrInUse
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, syscall.ENOLCK):
		return nil // a file system without locks
	}
	return err
}
