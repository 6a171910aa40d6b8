package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Names inside a node's directory (DIR).
const (
	markFile    = "atoll-node" // says that the folder is ours, and of which format
	lockFile    = "lock"       // held while a process runs on the folder
	epochFile   = "epoch"      // boot epoch, u32
	nodeKeyFile = "node.key"   // Ed25519 key of the node
	ownerFile   = "owner.key"  // Ed25519 key of the member as owner of blocks
	rootKeyFile = "root.key"   // Ed25519 root key of the pool; only where it was created
	secretFile  = "secret"     // from which block keys are derived

	knownFile   = "known"      // addresses of the invite, as text: may be dialled although private
	portFile    = "port"       // on which the node listens unless told otherwise
	leftFile    = "left"       // the member here has left its pool
	pendingFile = "joining"    // pool of a join that has begun; of no account once there is a member
	memberFile  = "member"     // pool record and certificate chain
	rosterFile  = "roster"     // entries of the roster
	tableFile   = "table"      // routing table of the last run
	inviteFile  = "invites"    // invites given out and not used up
	storeDir    = "store"      // package diskstore
	uploadDir   = "uploads"    // package files: journals of unfinished puts
	listFile    = "catalogue"  // package files: what this member has put
	SocketName  = "atoll.sock" // control API
	markContent = "atoll-node 1\n"
)

// Faults of a home folder, each with a code of 20-dht §8.
var (
	ErrNotOurs = &Fault{FaultCode: "bad_dir", Text: "the folder holds something else"}
	ErrNoMark  = &Fault{FaultCode: "bad_dir", Text: "this looks like a node's folder whose file " + markFile + " is missing"}
	ErrMixed   = &Fault{FaultCode: "bad_dir", Text: "the keys and the certificate in the folder are not one member's"}
	ErrNoWrite = &Fault{FaultCode: "bad_dir", Text: "the folder cannot be written"}
	ErrNoLock  = &Fault{FaultCode: "bad_dir", Text: "the folder cannot be locked"}
	ErrDenied  = &Fault{FaultCode: "bad_dir", Text: "the folder is not this user's"}
	ErrNoRoom  = &Fault{FaultCode: "full", Text: "the disk of this node's folder is full"}
	ErrBadMark = &Fault{FaultCode: "bad_dir", Text: "this looks like a node's folder whose file " + markFile + " is damaged"}
	ErrInUse   = &Fault{FaultCode: "dir_in_use", Text: "another atoll process runs on this folder"}
	ErrTwin    = &Fault{FaultCode: "dir_in_use", Text: "another node with this identity is running"}
	ErrFailed  = &Fault{FaultCode: "disk_failed", Text: "the node stopped here after a disk error"}
	ErrDamaged = &Fault{FaultCode: "disk_failed", Text: "the index of this node's store is damaged"}
	ErrLeft    = &Fault{FaultCode: "not_member", Text: "the member in this folder has left its pool"}
	ErrJumped  = &Fault{FaultCode: "internal", Text: "this node has run before from a later copy of its folder; it now counts on from there: start it again"}
	ErrMember  = &Fault{FaultCode: "bad_dir", Text: "the folder belongs to a member of a pool already"}
	ErrPending = &Fault{FaultCode: "bad_dir", Text: "a join began here and has not succeeded"}
	ErrNotMade = &Fault{FaultCode: "bad_dir", Text: "there is no node in this folder yet"}
)

// Fault is an error with a stable code. Wrap it for details.
type Fault struct {
	FaultCode string
	Text      string
}

func (f *Fault) Error() string { return f.Text }

// Code is the error code of 20-dht §8.
func (f *Fault) Code() string { return f.FaultCode }

// home is a node's directory, locked for this process.
type home struct {
	dir  string
	lock *os.File
}

// openHome makes or opens the folder and takes its lock. A folder with other
// things in it is left alone.
func openHome(dir string) (*home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("%s: %w: %w; choose another folder with --dir", dir, ErrNoWrite, err)
	}
	if err := usable(dir); err != nil {
		return nil, err
	}
	if err := checkMark(dir); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, spaceFault(err, ErrNoWrite))
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", dir, lockFault(err))
	}
	h := &home{dir: dir, lock: f}
	if !h.has(markFile) {
		_ = os.Chmod(dir, 0o700) // one that was there before; doctor tells if that cannot be
		if err := h.write(markFile, []byte(markContent)); err != nil {
			h.close()
			return nil, fmt.Errorf("%s: %w", dir, spaceFault(err, ErrNoWrite))
		}
	}
	return h, nil
}

// usable refuses a folder that this user may not write to, or in which a file is
// another's: after one start as root, say, each later one would stumble over one
// file or the other.
func usable(dir string) error {
	err := syscall.Access(dir, 2|1) // W_OK, X_OK
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if err == nil && e.Type().IsRegular() {
			flag := os.O_RDONLY // but for two, they are replaced
			if e.Name() == listFile || e.Name() == lockFile {
				flag = os.O_RDWR
			}
			var f *os.File
			if f, err = os.OpenFile(filepath.Join(dir, e.Name()), flag, 0); err == nil {
				_ = f.Close()
			}
		}
	}
	return rightsFault(dir, err)
}

// rightsFault words what stands in the way of using a folder, as far as it is rights.
func rightsFault(dir string, err error) error {
	switch {
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%s: %w: %w", dir, ErrNoWrite, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: %w; run atoll as the user whose it is, or give it to this one (chown -R, chmod -R u+rwX)", dir, ErrDenied, err)
	}
	return nil // what else is wrong, whoever meets it tells
}

// spaceFault words an error of writing in the folder: as ErrNoRoom, or as otherwise,
// if that is not nil.
func spaceFault(err, otherwise error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: make room there: %w", ErrNoRoom, err)
	case err != nil && otherwise != nil:
		return fmt.Errorf("%w: %w", otherwise, err)
	}
	return err
}

// lockFault words what the system says of a lock that is not to be had.
func lockFault(err error) error {
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("%w; stop it first, or choose another folder with --dir", ErrInUse)
	case errors.Is(err, syscall.ENOLCK), errors.Is(err, errors.ErrUnsupported): // ENOSYS, ENOTSUP
		return fmt.Errorf("%w: %w: its file system has no locks; choose one on a local disk with --dir", ErrNoLock, err)
	}
	return fmt.Errorf("%w: %w", ErrNoLock, err)
}

// Vacant reports whether no node was ever made in dir, which need not exist. A folder
// with other things in it is an error. Nothing is written.
func Vacant(dir string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(dir, markFile)); err == nil {
		return false, nil
	}
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return true, checkMark(dir)
}

// checkMark refuses a folder that is neither empty nor ours. Configuration and
// the folders of further nodes may stand there before the first start.
func checkMark(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, markFile))
	if err == nil {
		if kind, _, _ := strings.Cut(markContent, " "); !strings.HasPrefix(string(b), kind+" ") && holds(dir, memberFile) {
			return fmt.Errorf("%s: %w: %s", dir, ErrBadMark, putMark(dir))
		}
		if string(b) != markContent {
			return fmt.Errorf("%s: %w: written by another version of atoll", dir, ErrNotOurs)
		}
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", dir, ErrNoWrite, err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "atoll.toml", lockFile, SocketName, "lost+found":
		default:
			if holds(dir, memberFile) || holds(dir, nodeKeyFile) {
				return fmt.Errorf("%s: %w: %s", dir, ErrNoMark, putMark(dir))
			}
			if ok, _ := filepath.Match("node-*", e.Name()); !ok {
				return fmt.Errorf("%s: %w (%s, for one); choose an empty folder with --dir", dir, ErrNotOurs, e.Name())
			}
		}
	}
	return nil
}

func putMark(dir string) string {
	return fmt.Sprintf("if it is, put the mark back: echo '%s' > '%s'", strings.TrimSpace(markContent), filepath.Join(dir, markFile))
}

func (h *home) close() { _ = h.lock.Close() }

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

func (h *home) has(name string) bool {
	return holds(h.dir, name)
}

func holds(dir, name string) bool {
	_, err := os.Lstat(filepath.Join(dir, name))
	return err == nil
}

// member refuses a folder that holds no member.
func (h *home) member() error {
	switch {
	case h.has(memberFile):
		return nil
	case h.has(pendingFile):
		return h.pending()
	}
	return fmt.Errorf("%s: %w", h.dir, ErrNotMade)
}

// current refuses a folder whose member has left its pool, too.
func (h *home) current() error {
	if err := h.member(); err != nil || !h.has(leftFile) {
		return err
	}
	return fmt.Errorf("%s: %w: to come back, ask an admin for a new invite and run \"atoll join INVITE\", here or in another folder (--dir)", h.dir, ErrLeft)
}

// pending words ErrPending.
func (h *home) pending() error {
	return fmt.Errorf("%s: %w: run \"atoll join INVITE\" again (the same invite still admits this folder), or remove the folder to begin anew", h.dir, ErrPending)
}

// read returns the content of a file, nil if there is none.
func (h *home) read(name string) ([]byte, error) {
	b, err := os.ReadFile(h.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// write replaces a file so that after a crash either the old or the new content
// is there whole: temporary name, fsync, rename, fsync of the folder.
func (h *home) write(name string, content []byte) error {
	return spaceFault(h.replace(name, content), nil)
}

func (h *home) replace(name string, content []byte) error {
	tmp := h.path(name + ".tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, h.path(name))
	}
	if err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return syncDir(h.dir)
}

// remove deletes a file, if it is there.
func (h *home) remove(name string) error {
	if err := os.Remove(h.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(h.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}

// nextEpoch raises the boot epoch and syncs it before it returns: a node must
// not send under an epoch that it could use again (10-overlay §1). Where the file is
// gone or damaged the others tell the node to jump, as after a restore.
func (h *home) nextEpoch(atLeast uint32) (uint32, error) {
	b, err := h.read(epochFile)
	if err != nil {
		return 0, fmt.Errorf("boot epoch: %w", err)
	}
	epoch := epochAfter(b, atLeast)
	if err := h.write(epochFile, binary.BigEndian.AppendUint32(nil, epoch)); err != nil {
		return 0, fmt.Errorf("boot epoch: %w", err)
	}
	return epoch, nil
}

// epochAfter is the boot epoch that follows the one in b, the content of its file.
func epochAfter(b []byte, atLeast uint32) uint32 {
	epoch := max(atLeast, 1)
	if len(b) == 4 {
		epoch = max(epoch, binary.BigEndian.Uint32(b)+1)
	}
	return epoch
}
