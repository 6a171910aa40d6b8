package files

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// Entry is a file of the catalogue. Names may repeat; the root's GUID does not.
type Entry struct {
	Name  string
	Link  seal.Link
	Size  int64
	PutAt time.Time // to the millisecond
}

// Catalogue remembers which files were put here and by which link they can be
// had again. It is a text file, appended to and synced:
//
//	1 + PUT_AT_MS SIZE LINK "NAME" CHECKSUM
//	1 - ROOT_GUID CHECKSUM
//
// The name is a Go string literal in ASCII, the checksum the first 4 bytes of
// the BLAKE3 of all before it on the line. A torn last line is cut off when
// the file is opened; a damaged line elsewhere is skipped, counted, and kept.
// Concurrent changes share a sync. After a failed sync nothing is accepted
// until the catalogue is opened again.
type Catalogue struct {
	path string

	syncing sync.Mutex // held during a sync; taken before mu
	synced  uint64     // guarded by syncing: changes that are durable

	mu      sync.Mutex // guards all below
	f       *os.File
	size    int64
	entries map[id.GUID]Entry
	sorted  []Entry // by name, time, GUID; nil when stale
	changes uint64
	lines   int
	damaged int
	failed  error
}

// Bounds of the catalogue file.
const (
	maxLine     = 2 << 10 // 255 bytes of name take at most 1,022 as a literal
	compactOver = 1024    // lines below which the file is never rewritten
)

// OpenCatalogue opens or creates the catalogue at path, mode 0600.
func OpenCatalogue(path string) (*Catalogue, error) {
	c := &Catalogue{path: path, entries: make(map[id.GUID]Entry)}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if c.lines > compactOver && c.lines > 2*len(c.entries) && c.damaged == 0 {
		if err := c.compact(); err != nil {
			_ = c.f.Close()
			return nil, fmt.Errorf("catalogue: compact: %w", err)
		}
	}
	return c, nil
}

func (c *Catalogue) open() error {
	_, statErr := os.Stat(c.path)
	f, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	c.f = f
	if errors.Is(statErr, os.ErrNotExist) {
		err = syncDir(filepath.Dir(c.path))
	}
	if err == nil {
		err = c.load()
	}
	if err != nil {
		_ = f.Close()
	}
	return err
}

// load reads the file and cuts off what follows the last whole line.
func (c *Catalogue) load() error {
	r := bufio.NewReaderSize(c.f, 64<<10)
	var line []byte
	tooLong := false
	for {
		part, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line)+len(part) > maxLine {
			tooLong = true
		}
		if !tooLong {
			line = append(line, part...)
		}
		c.size += int64(len(part))
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) {
			if n := len(part); n > 0 || len(line) > 0 {
				break // torn
			}
			return nil
		}
		c.lines++
		if tooLong || !c.apply(string(line[:len(line)-1])) {
			c.damaged++
		}
		line, tooLong = line[:0], false
	}
	return c.cutTail()
}

// cutTail removes the bytes after the last newline.
func (c *Catalogue) cutTail() error {
	const step = 4 << 10
	buf := make([]byte, step)
	end := c.size
	for end > 0 {
		n := min(step, end)
		if _, err := c.f.ReadAt(buf[:n], end-n); err != nil {
			return err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end = end - n + int64(i) + 1
			break
		}
		end -= n
	}
	c.size = end
	if err := c.f.Truncate(end); err != nil {
		return err
	}
	return c.f.Sync()
}

// apply takes over one line without its newline.
func (c *Catalogue) apply(line string) bool {
	body, ok := checkLine(line)
	if !ok {
		return false
	}
	if e, ok := parseEntry(body); ok {
		c.entries[e.Link.Root] = e
		return true
	}
	if s, ok := strings.CutPrefix(body, "1 - "); ok {
		g, err := id.Parse(s)
		delete(c.entries, g)
		return err == nil
	}
	return false
}

func lineSum(body string) string {
	sum := blake3.Sum256([]byte(body))
	return fmt.Sprintf("%x", sum[:4])
}

func withSum(body string) string { return body + " " + lineSum(body) }

func checkLine(line string) (body string, ok bool) {
	i := strings.LastIndexByte(line, ' ')
	if i < 0 || line[i+1:] != lineSum(line[:i]) {
		return "", false
	}
	return line[:i], true
}

func (e Entry) line() string {
	return withSum(fmt.Sprintf("1 + %d %d %s %s", e.PutAt.UnixMilli(), e.Size, e.Link.Text(), strconv.QuoteToASCII(e.Name)))
}

func parseEntry(body string) (Entry, bool) {
	f := strings.SplitN(body, " ", 6)
	if len(f) != 6 || f[0] != "1" || f[1] != "+" {
		return Entry{}, false
	}
	ms, err1 := strconv.ParseInt(f[2], 10, 64)
	size, err2 := strconv.ParseInt(f[3], 10, 64)
	link, err3 := seal.ParseLink(f[4])
	name, err4 := strconv.Unquote(f[5])
	if errors.Join(err1, err2, err3, err4) != nil || size < 0 || len(name) > seal.MaxName {
		return Entry{}, false
	}
	e := Entry{Name: name, Link: link, Size: size, PutAt: time.UnixMilli(ms)}
	return e, e.line() == withSum(body)
}

// Damaged returns the number of lines that could not be read. They stay in
// the file.
func (c *Catalogue) Damaged() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.damaged
}

// Add remembers e, in place of an entry with the same root. It is durable when
// Add returns.
func (c *Catalogue) Add(e Entry) error {
	e.PutAt = time.UnixMilli(e.PutAt.UnixMilli())
	n, err := c.append(e.line(), func() { c.entries[e.Link.Root] = e })
	if err != nil {
		return fmt.Errorf("catalogue: add %s: %w", e.Link.Root.Short(), err)
	}
	return c.sync(n)
}

// Remove forgets the file with this root, durably. What is not there is no
// error.
func (c *Catalogue) Remove(root id.GUID) error {
	if _, ok := c.Get(root); !ok {
		return nil
	}
	n, err := c.append(withSum("1 - "+root.String()), func() { delete(c.entries, root) })
	if err != nil {
		return fmt.Errorf("catalogue: remove %s: %w", root.Short(), err)
	}
	return c.sync(n)
}

func (c *Catalogue) append(line string, change func()) (n uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed != nil {
		return 0, c.failed
	}
	b := append([]byte(line), '\n')
	if len(b) > maxLine {
		return 0, ErrName
	}
	if _, err := c.f.WriteAt(b, c.size); err != nil {
		// A torn line must not join the next one.
		if cut := c.f.Truncate(c.size); cut != nil {
			c.failed = wrap(codeDiskFailed, errors.Join(err, cut))
		}
		return 0, err
	}
	c.size += int64(len(b))
	c.changes++
	c.lines++
	change()
	c.sorted = nil
	return c.changes, nil
}

// sync makes the first n changes durable; one caller syncs for those who wait.
func (c *Catalogue) sync(n uint64) error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	c.mu.Lock()
	upTo, f, failed := c.changes, c.f, c.failed
	c.mu.Unlock()
	if failed != nil {
		return failed
	}
	if c.synced >= n {
		return nil
	}
	if err := f.Sync(); err != nil {
		err = wrap(codeDiskFailed, fmt.Errorf("catalogue: %w", err))
		c.mu.Lock()
		c.failed = err
		c.mu.Unlock()
		return err
	}
	c.synced = upTo
	return nil
}

// Get returns the entry with this root.
func (c *Catalogue) Get(root id.GUID) (Entry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[root]
	return e, ok
}

// Len returns the number of entries.
func (c *Catalogue) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// List returns the entries whose names start with prefix, ordered by name,
// then by time. The slice is the caller's.
func (c *Catalogue) List(prefix string) []Entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.order()
	lo, _ := slices.BinarySearchFunc(s, prefix, func(e Entry, p string) int { return strings.Compare(e.Name, p) })
	hi := lo
	for hi < len(s) && strings.HasPrefix(s[hi].Name, prefix) {
		hi++
	}
	return slices.Clone(s[lo:hi])
}

// Named returns the one entry of this name, ErrNotFound or an
// *AmbiguousError.
func (c *Catalogue) Named(name string) (Entry, error) {
	var found []Entry
	for _, e := range c.List(name) {
		if e.Name == name {
			found = append(found, e)
		}
	}
	switch len(found) {
	case 0:
		return Entry{}, fmt.Errorf("%s: %w", EscapeName(name), ErrNotFound)
	case 1:
		return found[0], nil
	}
	return Entry{}, &AmbiguousError{Name: name, Entries: found}
}

func (c *Catalogue) order() []Entry {
	if c.sorted == nil {
		c.sorted = make([]Entry, 0, len(c.entries))
		for _, e := range c.entries {
			c.sorted = append(c.sorted, e)
		}
		slices.SortFunc(c.sorted, func(a, b Entry) int {
			if n := strings.Compare(a.Name, b.Name); n != 0 {
				return n
			}
			if n := a.PutAt.Compare(b.PutAt); n != 0 {
				return n
			}
			return a.Link.Root.Cmp(b.Link.Root)
		})
	}
	return c.sorted
}

// compact rewrites the file with the live entries only.
func (c *Catalogue) compact() error {
	tmp := c.path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	var size int64
	for _, e := range c.order() {
		n, err := w.WriteString(e.line() + "\n")
		if err != nil {
			return errors.Join(err, f.Close())
		}
		size += int64(n)
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := os.Rename(tmp, c.path); err != nil {
		return errors.Join(err, f.Close())
	}
	old := c.f
	c.f, c.size, c.lines = f, size, len(c.entries)
	return errors.Join(old.Close(), syncDir(filepath.Dir(c.path)))
}

// Close closes the file. Changes that returned are durable.
func (c *Catalogue) Close() error {
	c.syncing.Lock()
	defer c.syncing.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.failed, ErrClosed) {
		return nil
	}
	if c.failed == nil {
		c.failed = ErrClosed
	}
	return c.f.Close()
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
