package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestBackupIsDurable: a backup is told of as saved once its name is on the disk, too,
// unless the file system cannot tell.
func TestBackupIsDurable(t *testing.T) {
	h, err := openHome(filepath.Join(t.TempDir(), "n"))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	for _, c := range []struct {
		sync error
		kept bool
	}{{nil, true}, {syscall.EINVAL, true}, {syscall.ENOTSUP, true}, {syscall.EIO, false}} {
		path := filepath.Join(t.TempDir(), "backup")
		synced := ""
		err := h.backupTo(path, func(dir string) error {
			synced = dir
			if c.sync != nil {
				return &os.PathError{Op: "sync", Path: dir, Err: c.sync}
			}
			return nil
		})
		if (err == nil) != c.kept || !c.kept && !errors.Is(err, c.sync) || synced != filepath.Dir(path) {
			t.Errorf("sync of the folder gives %v: %v; synced %q", c.sync, err, synced)
		}
		if _, err := os.Stat(path); (err == nil) != c.kept {
			t.Errorf("sync of the folder gives %v: a file is there: %t", c.sync, err == nil)
		}
	}
}
