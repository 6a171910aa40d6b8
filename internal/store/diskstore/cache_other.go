//go:build !linux

package diskstore

import "github.com/cockroachdb/pebble/v2/vfs"

// dropCache does nothing: no such hint is known to us here.
func dropCache(vfs.File) {}

// readOnce is readFull.
func readOnce(f vfs.File, buf []byte, offset int64) error { return readFull(f, buf, offset) }
