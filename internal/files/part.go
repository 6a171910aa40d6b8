package files

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// part is an output under way: NAME.atoll-part beside NAME.atoll-map, which
// says whose part it is and which chunks were written:
//
//	"ATM1" · root GUID 32 · total u64 · chunk size u32 · one bit per chunk, lowest first
//
// A bit is a hint: who resumes reads the chunk and compares its name. So bits
// are written without a sync, and neither power cuts nor strangers' hands get
// wrong bytes into the output.
type part struct {
	root  *os.Root
	name  string
	data  *os.File
	state *os.File
	fresh bool // nothing was written to it before
	once  bool // too large for the page cache: see writeOnce

	mu   sync.Mutex // guards bits
	bits []byte
}

const (
	partSuffix = ".atoll-part"
	mapSuffix  = ".atoll-map"
	mapHead    = 4 + id.Size + 8 + 4

	// cachedMost bounds, in bytes, the outputs that stay in the page cache: a
	// small one is likely to be looked at next. Chosen by us.
	cachedMost = 64 << 20
)

var mapMagic = [4]byte{'A', 'T', 'M', '1'}

// beside returns the name of a helper file of name. Names too long for a
// suffix are shortened, and told apart by a hash.
func beside(name, suffix string) string {
	if len(name)+len(suffix) <= seal.MaxName {
		return name + suffix
	}
	sum := blake3.Sum256([]byte(name))
	return hex.EncodeToString(sum[:16]) + suffix
}

// openPart opens the part of name in root for the file g, going on with an
// earlier one of the same file.
func openPart(root *os.Root, name string, g id.GUID, total uint64, chunk uint32, mode os.FileMode) (p *part, err error) {
	head := append(make([]byte, 0, mapHead), mapMagic[:]...)
	head = append(head, g[:]...)
	head = binary.BigEndian.AppendUint64(head, total)
	head = binary.BigEndian.AppendUint32(head, chunk)
	chunks := (total + uint64(chunk) - 1) / uint64(chunk)

	p = &part{root: root, name: name, once: total > cachedMost, bits: make([]byte, (chunks+7)/8)}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.state, err = root.OpenFile(beside(name, mapSuffix), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return p, err
	}
	if err = lock(p.state); err != nil {
		return p, err
	}
	if err = dropStranger(root, beside(name, partSuffix)); err != nil {
		return p, err
	}
	if p.data, err = root.OpenFile(beside(name, partSuffix), os.O_RDWR|os.O_CREATE, mode|0o600); err != nil {
		return p, err
	}
	if p.load(head) {
		return p, nil
	}
	p.fresh = true
	clear(p.bits)
	if err = errors.Join(p.data.Truncate(0), p.state.Truncate(0)); err != nil {
		return p, err
	}
	_, err = p.state.WriteAt(head, 0)
	return p, err
}

// dropStranger removes what has the name of a part and is none that one may
// write to: a symbolic link, or a file that has another name as well, as after
// a kill between finish's link and remove.
func dropStranger(root *os.Root, name string) error {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().IsRegular() && links(info) <= 1:
		return nil
	}
	return root.Remove(name)
}

// load reads the bits of an earlier try; false if there was none.
func (p *part) load(head []byte) bool {
	got := make([]byte, len(head))
	if _, err := p.state.ReadAt(got, 0); err != nil || string(got) != string(head) {
		return false
	}
	n, err := p.state.ReadAt(p.bits, mapHead)
	clear(p.bits[n:])
	return err == nil || errors.Is(err, io.EOF)
}

func (p *part) marked(index int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bits[index/8]>>(index%8)&1 == 1
}

// zero makes a hole of the file one of the part. A fresh part has nothing to
// overwrite there; an earlier one may, whatever it was that wrote it.
func (p *part) zero(ctx context.Context, off, length int64, buf []byte) error {
	if p.fresh {
		return nil
	}
	for end := off + length; off < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		at, err := nextData(p.data, off)
		if errors.Is(err, io.EOF) || err == nil && at >= end {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := p.data.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if n == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if bytes.ContainsFunc(buf[:n], func(r rune) bool { return r != 0 }) {
			clear(buf[:n])
			if _, err := p.data.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		off = at + int64(n)
	}
	return nil
}

// write puts a chunk where it belongs.
func (p *part) write(b []byte, off int64) error {
	if p.once {
		n := writeOnce(p.data, b, off)
		b, off = b[n:], off+int64(n)
	}
	_, err := p.data.WriteAt(b, off)
	return err
}

// mark records that a chunk was written.
func (p *part) mark(index int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bits[index/8] |= 1 << (index % 8)
	_, err := p.state.WriteAt(p.bits[index/8:index/8+1], mapHead+index/8)
	return err
}

// finish makes the part durable under its name. Without force, a file that
// appeared there meanwhile is left alone.
func (p *part) finish(size int64, mode os.FileMode, mtime time.Time, force bool) error {
	if err := p.data.Truncate(size); err != nil {
		return err
	}
	from := beside(p.name, partSuffix)
	// Neither mode nor time is worth failing for: some file systems keep none.
	_ = p.root.Chtimes(from, mtime, mtime)
	if info, err := p.data.Stat(); err == nil && info.Mode().Perm()&^mode != 0 {
		_ = p.data.Chmod(info.Mode().Perm() & mode) // as made, umask and all, less what was added to write it
	}
	if err := p.data.Sync(); err != nil {
		return wrap(codeDiskFailed, err)
	}
	if err := p.rename(from, force); err != nil {
		return err
	}
	if err := p.syncDir(); err != nil {
		return wrap(codeDiskFailed, err)
	}
	_ = p.root.Remove(beside(p.name, mapSuffix)) // left behind, it is a hint that leads nowhere
	return nil
}

func (p *part) rename(from string, force bool) error {
	if err := replaceable(p.root, p.name, force); err != nil {
		return err
	}
	if force {
		return p.root.Rename(from, p.name)
	}
	// A link fails where a rename would replace.
	err := p.root.Link(from, p.name)
	switch {
	case err == nil:
		return p.root.Remove(from)
	case errors.Is(err, os.ErrExist):
		return fmt.Errorf("%s: %w", EscapeName(p.name), ErrExists)
	}
	return p.root.Rename(from, p.name) // no hard links here
}

// drop removes a part that nothing can go on from, and its map.
func (p *part) drop() {
	_ = p.root.Remove(beside(p.name, partSuffix)) // what is left over harms nobody
	_ = p.root.Remove(beside(p.name, mapSuffix))
}

// DropParts removes what earlier gets of a removed file, whose root block is g, have
// left in dir: nothing can go on from it. Parts that another get writes stay.
func DropParts(dir string, g id.GUID) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return
	}
	defer func() { _ = root.Close() }()
	maps, _ := fs.Glob(root.FS(), "*"+mapSuffix)
	for _, m := range maps {
		state, err := root.OpenFile(m, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		head := make([]byte, len(mapMagic)+id.Size)
		if lock(state) == nil {
			if _, err := state.ReadAt(head, 0); err == nil && string(head) == string(mapMagic[:])+string(g[:]) {
				_ = root.Remove(strings.TrimSuffix(m, mapSuffix) + partSuffix)
				_ = root.Remove(m)
			}
		}
		_ = state.Close()
	}
}

func (p *part) syncDir() error {
	d, err := p.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close keeps the part for a later try.
func (p *part) close() {
	for _, f := range []*os.File{p.data, p.state} {
		if f != nil {
			_ = f.Close()
		}
	}
}
