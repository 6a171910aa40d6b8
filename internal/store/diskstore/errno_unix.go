//go:build unix

package diskstore

import (
	"errors"
	"io/fs"
	"syscall"
)

// isQuota reports that a disk quota is used up: the same to us as no space.
func isQuota(err error) bool { return errors.Is(err, syscall.EDQUOT) }

// isIO reports that the device could not read or write.
func isIO(err error) bool { return errors.Is(err, syscall.EIO) }

// isReadOnly reports that the folder cannot be written by us.
func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}

// isLocked reports that a lock is held by somebody. fcntl(2) says EAGAIN or
// EACCES, the latter without a path.
func isLocked(err error) bool {
	var withPath *fs.PathError
	return errors.Is(err, syscall.EAGAIN) ||
		(errors.Is(err, syscall.EACCES) && !errors.As(err, &withPath)) ||
		(err != nil && err.Error() == "lock held by current process")
}
