package diskstore

import (
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// logFile is one of Pebble's log files. It never reports an error: see guard.
type logFile struct {
	g    *guard
	name string
	file vfs.File // nil if it could not be opened
}

var _ vfs.File = (*logFile)(nil)

func (g *guard) openLog(name string, open func() (vfs.File, error)) (vfs.File, error) {
	l := &logFile{g: g, name: name}
	if g.stopped.Load() {
		return l, nil
	}
	f, err := open()
	if err != nil {
		g.logged(err)
		return l, nil
	}
	l.file = f
	return l, nil
}

// live reports whether operations still reach the disk.
func (l *logFile) live() bool { return l.file != nil && !l.g.stopped.Load() }

func (l *logFile) Write(p []byte) (int, error) {
	if l.live() {
		_, err := l.file.Write(p)
		l.g.logged(err)
	}
	return len(p), nil
}

func (l *logFile) WriteAt(p []byte, off int64) (int, error) {
	if l.live() {
		_, err := l.file.WriteAt(p, off)
		l.g.logged(err)
	}
	return len(p), nil
}

// synced never takes want of space for temporary: an fsync failed.
func (l *logFile) synced(err error) {
	_ = l.g.synced(l.name, err) // it has stopped the guard
}

func (l *logFile) Sync() error {
	if l.live() {
		l.synced(l.file.Sync())
	}
	return nil
}

func (l *logFile) SyncData() error {
	if l.live() {
		l.synced(l.file.SyncData())
	}
	return nil
}

func (l *logFile) SyncTo(length int64) (bool, error) {
	if !l.live() {
		return false, nil
	}
	full, err := l.file.SyncTo(length)
	l.synced(err)
	return full && err == nil, nil
}

// Preallocate is an optimisation; without space the write will tell.
func (l *logFile) Preallocate(off, length int64) error {
	if l.live() {
		return l.file.Preallocate(off, length)
	}
	return nil
}

func (l *logFile) Close() error {
	if l.file != nil {
		l.g.logged(l.file.Close())
	}
	return nil
}

func (l *logFile) Stat() (vfs.FileInfo, error) {
	if l.file != nil {
		info, err := l.file.Stat()
		if err == nil {
			return info, nil
		}
		l.g.logged(err)
	}
	return noInfo(l.g.PathBase(l.name)), nil
}

// Read and ReadAt are not used on a log that is being written.
func (l *logFile) Read([]byte) (int, error)          { return 0, errStopped }
func (l *logFile) ReadAt([]byte, int64) (int, error) { return 0, errStopped }
func (l *logFile) Prefetch(int64, int64) error       { return nil }

func (l *logFile) Fd() uintptr {
	if l.live() {
		return l.file.Fd()
	}
	return vfs.InvalidFd
}

// noInfo describes a log file that is none, by its name: empty.
type noInfo string

func (n noInfo) Name() string         { return string(n) }
func (noInfo) Size() int64            { return 0 }
func (noInfo) Mode() os.FileMode      { return 0o600 }
func (noInfo) ModTime() time.Time     { return time.Time{} }
func (noInfo) IsDir() bool            { return false }
func (noInfo) Sys() any               { return nil }
func (noInfo) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }
