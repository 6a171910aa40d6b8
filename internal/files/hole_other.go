//go:build !linux

package files

import "os"

// nextData returns the first position from off on where f may hold anything
// but zeros; this system does not tell.
func nextData(_ *os.File, off int64) (int64, error) { return off, nil }
