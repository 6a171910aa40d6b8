//go:build !unix

package files

import "os"

// inode is not known on this system.
func inode(os.FileInfo) (device, number uint64) { return 0, 0 }

// links is not known on this system.
func links(os.FileInfo) uint64 { return 1 }
