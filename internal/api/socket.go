package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// maxSunPath is the longest socket path every Unix takes, in bytes: macOS has
// room for 104, the closing NUL included.
const maxSunPath = 103

// Listen makes the socket DIR/atoll.sock. The caller holds the folder's lock,
// so a socket that is there is either a stale one, which is replaced, or that
// of a process which ignores the lock: if somebody answers on it, Listen fails
// with dir_in_use.
//
// The socket is bound inside a folder only its owner can enter, gets its mode
// and is then renamed into place: nobody can connect before it has mode 0600.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, SocketName)
	if c, err := dialSocket(context.Background(), path); err == nil {
		_ = c.Close() // a probe: nothing was said
		return nil, Errorf(DirInUse, "up", dir, "a node is answering on %s", path)
	}
	tmp, err := os.MkdirTemp(dir, ".sock-")
	if err != nil {
		return nil, Errorf(BadDir, "up", dir, "cannot make the socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(tmp) }() // holds nothing once the socket has moved
	bound := filepath.Join(tmp, "s")
	var l *net.UnixListener
	err = withShortPath(bound, func(short string) (err error) {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		return err
	})
	if err != nil {
		return nil, Errorf(BadDir, "up", dir, "cannot make the socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = os.Chmod(bound, 0o600)
	if err == nil {
		err = os.Rename(bound, path)
	}
	if err != nil {
		_ = l.Close() // the error told is the first
		return nil, Errorf(BadDir, "up", dir, "cannot make the socket: %w", err)
	}
	mine, err := os.Lstat(path)
	if err != nil {
		_ = l.Close()
		return nil, Errorf(BadDir, "up", dir, "cannot make the socket: %w", err)
	}
	return &listener{UnixListener: l, path: path, mine: mine}, nil
}

// listener hands out connections of this user and root only.
type listener struct {
	*net.UnixListener
	path    string
	mine    fs.FileInfo
	refused atomic.Int64
	once    sync.Once
}

// Accept waits for the next connection from somebody we serve. Others are
// closed without a word and counted.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err == nil && allowed(uid, os.Geteuid()) {
			return c, nil
		}
		if errors.Is(err, errNoPeerCred) { // the mode of the socket is what we have
			return c, nil
		}
		l.refused.Add(1)
		_ = c.Close()
	}
}

// Close stops listening and removes the socket, unless it is another's by now.
func (l *listener) Close() (err error) {
	l.once.Do(func() {
		if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.mine) {
			_ = os.Remove(l.path) // a stale socket harms nobody: see Listen
		}
		err = l.UnixListener.Close()
	})
	return err
}

// allowed reports whether a server of user self serves a client of user peer.
func allowed(peer, self int) bool { return peer == self || peer == 0 }

// trusted reports whether a client of user self confides in a server of user
// peer: root may look after anybody's node.
func trusted(peer, self int) bool { return peer == self || peer == 0 || self == 0 }

// errNoPeerCred says that this system does not tell who the other side is.
var errNoPeerCred = errors.New("peer credentials are not known on this system")

// dialSocket connects to a node and makes sure whose it is, since requests
// carry links.
func dialSocket(ctx context.Context, path string) (net.Conn, error) {
	var conn net.Conn
	d := net.Dialer{Timeout: 5 * time.Second}
	err := withShortPath(path, func(short string) (err error) {
		conn, err = d.DialContext(ctx, "unix", short)
		return err
	})
	if err != nil {
		return nil, err
	}
	uid, err := peerUID(conn.(*net.UnixConn))
	if err != nil && !errors.Is(err, errNoPeerCred) {
		_ = conn.Close() // the error told is the first
		return nil, err
	}
	if err == nil && !trusted(uid, os.Geteuid()) {
		_ = conn.Close()
		return nil, Errorf(Forbidden, "", path, "the socket belongs to user %d, not to you: refusing to talk to it", uid)
	}
	return conn, nil
}

// withShortPath calls f with a path to the same file that fits a socket
// address: path itself, one relative to the working folder, or, on Linux, one
// through an open descriptor of its folder. Where none fits, it says so.
func withShortPath(path string, f func(short string) error) error {
	if len(path) <= maxSunPath {
		return f(path)
	}
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && len(rel) <= maxSunPath {
			return f(rel)
		}
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // opened for reading: nothing to lose
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	if _, err := os.Stat(filepath.Dir(short)); err != nil || len(short) > maxSunPath {
		return Errorf(BadDir, "", filepath.Dir(path), "the path of the socket has %d bytes, and this system takes %d: choose a shorter --dir", len(path), maxSunPath)
	}
	return f(short)
}
