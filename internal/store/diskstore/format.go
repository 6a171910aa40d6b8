package diskstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A store's folder:
//
//	FORMAT   three lines of text: what this is, format, pool tag
//	LOCK     held by the process that has it open
//	FAILED   why it stopped after a disk error
//	meta/    Pebble
//	blocks/  block files, see blockFiles
//	segments/  smaller blocks, see segments; since format 2
const (
	formatVersion = 2
	formatOldest  = 1 // 2 added segments: a store of 1 has none yet
	formatHead    = "atoll store"

	formatName   = "FORMAT"
	lockName     = "LOCK"
	failedName   = "FAILED"
	metaName     = "meta"
	blocksName   = "blocks"
	segmentsName = "segments"
)

// ErrNotAccepted is returned by Open for a store that stopped after a disk
// error, until Options.AcceptFailed says that somebody looked at the disk. It
// wraps store.ErrFailed.
var ErrNotAccepted = fmt.Errorf("%w, and the disk was not accepted since", store.ErrFailed)

// ErrDamaged is returned by Open for a store whose index cannot be read: Pebble's
// own files fail their checks or are gone. Its blocks may be whole, but nothing
// says which is which.
var ErrDamaged = errors.New("the index of the store is damaged")

// folder is a store's directory, locked by us.
type folder struct {
	fs   vfs.FS
	dir  string
	lock io.Closer
}

// openFolder checks that dir is ours or new, locks it, and leaves it with
// FORMAT, meta and blocks in place and durable.
func openFolder(f vfs.FS, dir string, o *Options) (_ *folder, err error) {
	if err := makeDir(f, dir); err != nil {
		return nil, fmt.Errorf("diskstore: %w", explain(dir, err))
	}
	// A folder that is not ours is left as it is, without a lock file.
	if err := checkNames(f, dir, o.Pool); err != nil {
		return nil, err
	}
	lock, err := f.Lock(f.PathJoin(dir, lockName))
	if err != nil {
		if isLocked(err) {
			return nil, fmt.Errorf("diskstore: %s: %w", dir, store.ErrInUse)
		}
		return nil, fmt.Errorf("diskstore: lock: %w", explain(dir, err))
	}
	d := &folder{fs: f, dir: dir, lock: lock}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()
	if err := d.checkFormat(o.Pool); err != nil {
		return nil, err
	}
	if err := d.checkFailed(o.AcceptFailed); err != nil {
		return nil, err
	}
	if err := d.makeFolders(); err != nil {
		return nil, fmt.Errorf("diskstore: %w", explain(dir, err))
	}
	return d, nil
}

// explain says what to do about errors that people meet.
func explain(dir string, err error) error {
	if isReadOnly(err) {
		return fmt.Errorf("folder %s cannot be written by this user: %w", dir, err)
	}
	if isNoSpace(err) {
		return fmt.Errorf("no space left for a store in %s: %w: %w", dir, store.ErrFull, err)
	}
	return fmt.Errorf("folder %s: %w", dir, err)
}

func makeDir(f vfs.FS, dir string) error {
	info, err := f.Stat(dir)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%w: not a folder", store.ErrFormat)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// The topmost folder that exists holds the first new name; each new
	// folder holds the next.
	made := []string{dir}
	for parent := f.PathDir(dir); ; parent = f.PathDir(parent) {
		made = append(made, parent)
		if _, err := f.Stat(parent); err == nil || f.PathDir(parent) == parent {
			break
		}
	}
	if err := f.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := len(made) - 1; i > 0; i-- {
		if err := syncDir(f, made[i]); err != nil {
			return err
		}
	}
	return nil
}

// checkNames refuses a folder in use for something else.
func checkNames(f vfs.FS, dir string, pool []byte) error {
	names, err := f.List(dir)
	if err != nil {
		return fmt.Errorf("diskstore: %w", explain(dir, err))
	}
	stranger, ours := "", false
	for _, name := range names {
		switch name {
		case formatName:
			return nil
		case lockName, failedName, formatName + tempSuffix:
		case metaName:
			stranger, ours = name, true
		default:
			stranger = name
		}
	}
	if ours {
		return fmt.Errorf("diskstore: %s: %w: its %s is gone: %s", dir, store.ErrFormat, formatName, putBack(f.PathJoin(dir, formatName), pool))
	}
	if stranger != "" {
		return fmt.Errorf("diskstore: folder %s holds other files, among them %q: %w; choose a new or an empty folder",
			dir, stranger, store.ErrFormat)
	}
	return nil
}

func (d *folder) path(name string) string { return d.fs.PathJoin(d.dir, name) }

func (d *folder) exists(name string) (bool, error) {
	_, err := d.fs.Stat(d.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// checkFormat reads FORMAT, or writes it in a new store.
func (d *folder) checkFormat(pool []byte) error {
	b, err := readFile(d.fs, d.path(formatName), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return d.writeFormat(pool)
	}
	if err != nil {
		return fmt.Errorf("diskstore: %w", explain(d.dir, err))
	}
	number, has, ok := parseFormat(string(b))
	if !ok {
		return fmt.Errorf("diskstore: %s: %w: its %s is not ours, or damaged: %s", d.dir, store.ErrFormat, formatName, putBack(d.path(formatName), pool))
	}
	if number < formatOldest || number > formatVersion {
		return fmt.Errorf("diskstore: %s: %w: it has format %d, this program reads %d to %d; use the newer program",
			d.dir, store.ErrFormat, number, formatOldest, formatVersion)
	}
	if has != hex.EncodeToString(pool) {
		return fmt.Errorf("diskstore: %s: %w: it belongs to pool %s, not %x", d.dir, store.ErrFormat, has, pool)
	}
	if number < formatVersion {
		return d.writeFormat(pool)
	}
	return nil
}

// formatText is FORMAT; its lines end in end.
func formatText(pool []byte, end string) string {
	return fmt.Sprintf("%s%sformat %d%spool %x%s", formatHead, end, formatVersion, end, pool, end)
}

// parseFormat takes FORMAT apart.
func parseFormat(text string) (number int, pool string, ok bool) {
	lines := strings.Split(text, "\n")
	if len(lines) < 3 || lines[0] != formatHead {
		return 0, "", false
	}
	digits, is := strings.CutPrefix(lines[1], "format ")
	pool, has := strings.CutPrefix(lines[2], "pool ")
	number, err := strconv.Atoi(digits)
	_, perr := hex.DecodeString(pool)
	return number, pool, is && has && err == nil && perr == nil && pool != ""
}

// putBack says how a store that has lost its FORMAT gets it again.
func putBack(path string, pool []byte) string {
	return fmt.Sprintf("if it is this pool's store, put it back: printf '%s' > '%s'", formatText(pool, `\n`), path)
}

// writeFormat names the format of this program. Older ones have nothing that
// it reads otherwise.
func (d *folder) writeFormat(pool []byte) error {
	text := formatText(pool, "\n")
	if err := writeFile(d.fs, d.dir, formatName, []byte(text)); err != nil {
		return fmt.Errorf("diskstore: %w", explain(d.dir, err))
	}
	return nil
}

func (d *folder) checkFailed(accept bool) error {
	b, err := readFile(d.fs, d.path(failedName), 4096)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("diskstore: %w", explain(d.dir, err))
	case !accept:
		return fmt.Errorf("diskstore: %s: %w: %s", d.dir, ErrNotAccepted, strings.TrimSpace(string(b)))
	}
	return nil
}

// forget removes FAILED, once the disk is accepted.
func (d *folder) forget() error {
	is, err := d.exists(failedName)
	if err != nil || !is {
		return err
	}
	if err := d.fs.Remove(d.path(failedName)); err != nil {
		return err
	}
	return syncDir(d.fs, d.dir)
}

func (d *folder) makeFolders() error {
	hasMeta, err := d.exists(metaName)
	if err != nil {
		return err
	}
	hasBlocks, err := d.exists(blocksName)
	if err != nil {
		return err
	}
	hasSegments, err := d.exists(segmentsName)
	if err != nil {
		return err
	}
	if (hasBlocks || hasSegments) && !hasMeta {
		// Every block file would be an orphan and be swept.
		return fmt.Errorf("%w: %w: its records (%s) are gone, its blocks are not", ErrDamaged, store.ErrFormat, metaName)
	}
	// meta before the others, each durable, so that a crash between cannot look
	// like that.
	for _, name := range []string{metaName, blocksName, segmentsName} {
		if err := d.fs.MkdirAll(d.path(name), 0o700); err != nil {
			return err
		}
		if err := syncDir(d.fs, d.dir); err != nil {
			return err
		}
	}
	return nil
}

// markFailed writes FAILED as well as it can: the disk is in doubt.
func (d *folder) markFailed(cause error) {
	text := fmt.Sprintf("%s %v\n", time.Now().UTC().Format(time.RFC3339), cause)
	_ = writeFile(d.fs, d.dir, failedName, []byte(text))
}

func (d *folder) close() error { return d.lock.Close() }

func readFile(f vfs.FS, path string, limit int64) ([]byte, error) {
	file, err := f.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(file, limit))
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	return b, err
}

// writeFile replaces DIR/name at once and durably.
func writeFile(f vfs.FS, dir, name string, b []byte) error {
	temp := f.PathJoin(dir, name+tempSuffix)
	file, err := f.Create(temp, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write(b)
	if err == nil {
		err = file.Sync()
	}
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = f.Rename(temp, f.PathJoin(dir, name))
	}
	if err != nil {
		return err
	}
	return syncDir(f, dir)
}
