//go:build !unix

package diskstore

import (
	"errors"
	"io/fs"
)

func isQuota(error) bool { return false }

func isIO(error) bool { return false }

func isReadOnly(err error) bool { return errors.Is(err, fs.ErrPermission) }

func isLocked(err error) bool { return err != nil && !errors.Is(err, fs.ErrPermission) }
