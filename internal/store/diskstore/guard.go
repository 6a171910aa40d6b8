package diskstore

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errStopped is what every write meets once the store has stopped.
var errStopped = errors.New("writes are stopped after a disk error")

// noSpacePause slows Pebble down when a table cannot be written for want of
// space: it retries a failed flush at once, without end.
const noSpacePause = 50 * time.Millisecond

// guard is the file system that Pebble and the block files write through; each
// has its own. The first fsync that fails stops it: after a failed fsync the
// kernel may have dropped the pages and marked them clean, so a second fsync
// that succeeds proves nothing (Rebello et al., USENIX ATC 2020). From then on
// it refuses every write, so that whatever Pebble tries next leaves no trace:
// to the disk it is as if the process had died at that moment.
//
// Pebble's log without space stops it as well, but not the store: see revive.
//
// Reads pass through.
type guard struct {
	vfs.FS
	blocks      bool        // guards block files, else Pebble
	tolerant    bool        // planted bug: fsync errors do not stop it
	onSyncError func(error) // called before the failed fsync returns
	stopped     atomic.Bool
	logFull     atomic.Bool // Pebble's log met ENOSPC
	full        atomic.Bool // the last write of a table met ENOSPC
}

var _ vfs.FS = (*guard)(nil)

// Unwrap implements vfs.FS.
func (g *guard) Unwrap() vfs.FS { return g.FS }

func (g *guard) check() error {
	if g.stopped.Load() {
		return errStopped
	}
	return nil
}

// wrote looks at the result of an operation that may need space.
func (g *guard) wrote(name string, err error) error {
	if g.blocks {
		return err
	}
	isLog := strings.HasSuffix(name, ".log")
	switch {
	case err == nil:
		if !isLog && g.full.Load() {
			g.full.Store(false)
		}
	case !isNoSpace(err):
	case isLog:
		g.runOut()
	default:
		g.full.Store(true)
		pause := time.NewTimer(noSpacePause)
		<-pause.C
	}
	return err
}

// runOut stops Pebble's writes for want of space where it cannot go on: in its
// log or its manifest.
func (g *guard) runOut() {
	g.stopped.Store(true)
	g.logFull.Store(true)
}

// synced looks at the result of an fsync. For want of space a block's
// temporary file can fail it harmlessly: the file is thrown away.
func (g *guard) synced(name string, err error) error {
	switch {
	case err == nil, g.tolerant, errors.Is(err, errStopped):
	case g.blocks && isTemp(name) && isNoSpace(err):
	default:
		g.stopped.Store(true)
		g.onSyncError(err)
	}
	return err
}

func isNoSpace(err error) bool { return vfs.IsNoSpaceError(err) || isQuota(err) }

func (g *guard) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.Create(name, c)
	return g.wrap(name, f, g.wrote(name, err))
}

func (g *guard) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	return g.wrap(name, f, g.wrote(name, err))
}

func (g *guard) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.ReuseForWrite(oldname, newname, c)
	return g.wrap(newname, f, g.wrote(newname, err))
}

func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	return g.wrap(name, f, err)
}

func (g *guard) Link(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(newname, g.FS.Link(oldname, newname))
}

func (g *guard) Remove(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

func (g *guard) RemoveAll(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.RemoveAll(name)
}

func (g *guard) Rename(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(newname, g.FS.Rename(oldname, newname))
}

func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(dir, g.FS.MkdirAll(dir, perm))
}

// Lock locks nothing: DIR/LOCK excludes others, and a Pebble that had to be
// abandoned could never give its own lock back.
func (g *guard) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func (g *guard) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &guardedFile{File: f, g: g, name: name}, nil
}

// guardedFile is a file or directory open for writing or syncing.
type guardedFile struct {
	vfs.File
	g    *guard
	name string
}

func (f *guardedFile) Write(p []byte) (int, error) {
	if err := f.g.check(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	return n, f.g.wrote(f.name, err)
}

func (f *guardedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.g.check(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.g.wrote(f.name, err)
}

func (f *guardedFile) Preallocate(off, length int64) error {
	if err := f.g.check(); err != nil {
		return err
	}
	return f.File.Preallocate(off, length)
}

func (f *guardedFile) Sync() error {
	if err := f.g.check(); err != nil {
		return err
	}
	return f.g.synced(f.name, f.File.Sync())
}

func (f *guardedFile) SyncData() error {
	if err := f.g.check(); err != nil {
		return err
	}
	return f.g.synced(f.name, f.File.SyncData())
}

func (f *guardedFile) SyncTo(length int64) (bool, error) {
	if err := f.g.check(); err != nil {
		return false, err
	}
	full, err := f.File.SyncTo(length)
	return full, f.g.synced(f.name, err)
}
