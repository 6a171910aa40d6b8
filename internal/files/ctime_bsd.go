//go:build darwin || freebsd || netbsd

package files

import (
	"os"
	"syscall"
)

// ctime is when a file, or what is said of it, changed last, in Unix ns; it
// cannot be set. 0: not known.
func ctime(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ctimespec.Nano()
	}
	return 0
}
