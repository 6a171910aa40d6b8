package diskstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// errStopped is what writes meet once a guard has stopped.
var errStopped = errors.New("writes are stopped after a disk error")

// retryPause slows Pebble down when it cannot write a table: it retries a
// failed flush at once, without end.
const retryPause = 50 * time.Millisecond

// guard is the file system that Pebble and the block files write through; each
// has its own. The first fsync that fails stops it: after a failed fsync the
// kernel may have dropped the pages and marked them clean, so a second fsync
// that succeeds proves nothing (Rebello et al., USENIX ATC 2020). From then on
// no write reaches the disk, so that whatever Pebble tries next leaves no
// trace: it is as if the process had died at that moment.
//
// Pebble's log without space stops its guard as well, but not the store: see
// revive.
//
// Pebble answers errors of its log and of folder fsyncs with panics, some in
// its own goroutines, some while a lock is in a state that turns the panic into
// a fatal error. So for these the guard stops first and then says that all is
// well; nothing more is written, and acker asks the guard before it believes
// an fsync.
//
// Reads pass through.
type guard struct {
	vfs.FS
	blocks   bool        // guards block files, else Pebble
	tolerant bool        // planted bug: fsync errors are passed over
	onError  func(error) // stops the store; called before the operation returns
	stopped  atomic.Bool
	logFull  atomic.Bool // Pebble's log or manifest met ENOSPC
	full     atomic.Bool // the last write of a table met ENOSPC
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

func (g *guard) stop(err error) {
	g.stopped.Store(true)
	g.onError(err)
}

// runOut stops Pebble's writes for want of space where it cannot go on: in its
// log or its manifest.
func (g *guard) runOut() {
	g.stopped.Store(true)
	g.logFull.Store(true)
}

// wrote looks at the result of an operation that may need space, but for the
// log's.
func (g *guard) wrote(err error) error {
	switch {
	case g.blocks:
	case err == nil:
		if g.full.Load() {
			g.full.Store(false)
		}
	case isNoSpace(err):
		g.full.Store(true)
		g.pause()
	}
	return err
}

// synced looks at the result of an fsync of a file. For want of space a
// block's file can fail it harmlessly, for the file is thrown away,
// and so can a segment, for what was to be synced is garbage from then on.
func (g *guard) synced(name string, err error) error {
	switch {
	case err == nil, errors.Is(err, errStopped):
	case g.tolerant:
		return nil
	case g.blocks && (isBlock(name) || isSegment(name)) && isNoSpace(err):
	default:
		g.stop(fmt.Errorf("fsync: %w", err))
	}
	return err
}

// logged is what becomes of an error in Pebble's log: the guard stops.
func (g *guard) logged(err error) {
	switch {
	case err == nil, g.stopped.Load():
	case isNoSpace(err):
		g.runOut()
	default:
		g.stop(fmt.Errorf("log: %w", err))
	}
}

func (g *guard) pause() {
	over := time.NewTimer(retryPause)
	<-over.C
}

func isNoSpace(err error) bool { return vfs.IsNoSpaceError(err) || isQuota(err) }

func (g *guard) isLog(name string) bool { return !g.blocks && strings.HasSuffix(name, ".log") }

// isMarker reports whether a file is one of Pebble's markers, which say by
// their name which manifest and format are in force.
func (g *guard) isMarker(name string) bool {
	return !g.blocks && strings.HasPrefix(g.PathBase(name), "marker.")
}

// Create implements vfs.FS. Before a marker it syncs the folder: Pebble moves
// the marker to a new manifest without having made the manifest's name
// durable, and a power cut may keep the one and lose the other.
func (g *guard) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if g.isLog(name) {
		return g.openLog(name, func() (vfs.File, error) { return g.FS.Create(name, c) })
	}
	if g.isMarker(name) {
		if err := syncDir(g, g.PathDir(name)); err != nil {
			return nil, err
		}
	}
	if err := g.check(); err != nil {
		if !g.blocks {
			g.pause()
		}
		return nil, err
	}
	f, err := g.FS.Create(name, c)
	return g.wrap(name, f, g.wrote(err))
}

// ReuseForWrite implements vfs.FS.
func (g *guard) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if g.isLog(newname) {
		return g.openLog(newname, func() (vfs.File, error) { return g.FS.ReuseForWrite(oldname, newname, c) })
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.ReuseForWrite(oldname, newname, c)
	return g.wrap(newname, f, g.wrote(err))
}

// OpenReadWrite implements vfs.FS.
func (g *guard) OpenReadWrite(name string, c vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := g.check(); err != nil {
		return nil, err
	}
	f, err := g.FS.OpenReadWrite(name, c, opts...)
	return g.wrap(name, f, g.wrote(err))
}

// OpenDir implements vfs.FS.
func (g *guard) OpenDir(name string) (vfs.File, error) {
	f, err := g.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &guardedDir{File: f, g: g}, nil
}

// Link implements vfs.FS.
func (g *guard) Link(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(g.FS.Link(oldname, newname))
}

// Remove implements vfs.FS. Before the old marker goes, the new one must be
// durable: without any, Pebble would begin anew.
func (g *guard) Remove(name string) error {
	if g.isMarker(name) {
		if err := syncDir(g, g.PathDir(name)); err != nil {
			return err
		}
	}
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.Remove(name)
}

// RemoveAll implements vfs.FS.
func (g *guard) RemoveAll(name string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.FS.RemoveAll(name)
}

// Rename implements vfs.FS.
func (g *guard) Rename(oldname, newname string) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(g.FS.Rename(oldname, newname))
}

// MkdirAll implements vfs.FS.
func (g *guard) MkdirAll(dir string, perm os.FileMode) error {
	if err := g.check(); err != nil {
		return err
	}
	return g.wrote(g.FS.MkdirAll(dir, perm))
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

// guardedFile is a file open for writing.
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
	return n, f.g.wrote(err)
}

func (f *guardedFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.g.check(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, off)
	return n, f.g.wrote(err)
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

// guardedDir is a folder open for syncing. Pebble is never told of an error.
type guardedDir struct {
	vfs.File
	g *guard
}

func (d *guardedDir) Sync() error {
	err := d.g.check()
	if err == nil {
		err = d.g.synced("", d.File.Sync())
	}
	if !d.g.blocks {
		return nil
	}
	return err
}
