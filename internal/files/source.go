package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"atoll.example/atoll/internal/seal"
)

// source is what a put reads: a regular file, any part of it at any time, or
// a stream, once.
type source struct {
	file *os.File // nil for a stream
	path string
	info os.FileInfo

	stream io.Reader
	size   int64 // -1: not known
	id     identity
	name   string
	mode   uint32
	mtime  int64 // Unix ms
	off    int64 // read so far, of a stream
}

func (c *Client) openSource(r *PutRequest) (*source, error) {
	if (r.Path == "") == (r.Source == nil) {
		return nil, wrap(codeBadRequest, errors.New("a put needs a path or a source, and not both"))
	}
	if len(r.ResumeKey) > maxResumeKey {
		return nil, wrap(codeBadRequest, fmt.Errorf("a resume key has at most %d bytes", maxResumeKey))
	}
	var s *source
	if r.Path != "" {
		var err error
		if s, err = openFile(r.Path); err != nil {
			return nil, err
		}
	} else {
		s = &source{stream: r.Source, size: -1, mode: 0o644, mtime: c.cfg.Now().UnixMilli()}
		if r.Size > 0 {
			s.size = r.Size
		}
		if r.Mode != 0 {
			s.mode = uint32(r.Mode.Perm())
		}
		if !r.ModTime.IsZero() {
			s.mtime = r.ModTime.UnixMilli()
		}
		if r.ResumeKey != "" {
			s.id = identity{Size: s.size, Key: r.ResumeKey}
		}
	}
	if r.Name != "" {
		s.name = r.Name
	}
	if s.name != "" && !seal.ValidName(s.name) {
		_ = s.close()
		return nil, ErrName
	}
	return s, nil
}

func openFile(path string) (*source, error) {
	// A FIFO would block the open for ever; ask before.
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", EscapeName(path), ErrNotFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, pathError(err)
	}
	if info, err = f.Stat(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: %w", EscapeName(path), ErrNotFile), f.Close())
	}
	// Files that the kernel makes up, such as those below /proc, say 0.
	if n, _ := f.ReadAt(make([]byte, 1), info.Size()); n > 0 {
		err := fmt.Errorf("%s: %w: it says it has %d bytes, and has more; put it as a stream", EscapeName(path), ErrChanged, info.Size())
		return nil, errors.Join(err, f.Close())
	}
	s := &source{
		file: f, path: path, info: info, size: info.Size(), name: filepath.Base(path),
		mode: uint32(info.Mode().Perm()), mtime: info.ModTime().UnixMilli(),
	}
	s.id = identity{Size: s.size, Mtime: info.ModTime().UnixNano()}
	s.id.Device, s.id.Inode = inode(info)
	if at := ctime(info); at != 0 { // the mtime may have been set back
		s.id.Key = fmt.Sprintf("ctime %d", at)
	}
	if s.id.Inode == 0 { // no such thing on this system: the path must do
		if abs, err := filepath.Abs(path); err == nil {
			s.id.Key += abs
		}
	}
	return s, nil
}

// pathError gives the errors of a path their codes: not_found is the pool's word.
func pathError(err error) error {
	var at *os.PathError
	if !errors.As(err, &at) {
		return err
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &Error{code: codeBadRequest, text: EscapeName(at.Path) + ": no such file or folder on this machine"}
	case errors.Is(err, os.ErrPermission):
		return &Error{code: codeForbidden, text: EscapeName(at.Path) + ": the file system does not allow it"}
	}
	return err
}

// read fills buf from chunk index on; n < len(buf) means the end.
func (s *source) read(buf []byte, index int64) (n int, err error) {
	if s.file == nil {
		n, err = io.ReadFull(s.stream, buf)
		s.off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = nil
			if s.size >= 0 && s.off != s.size {
				err = fmt.Errorf("%w: it ended after %d bytes, %d were announced", ErrChanged, s.off, s.size)
			}
		} else if err == nil && s.size >= 0 && s.off > s.size {
			err = fmt.Errorf("%w: more than the %d bytes announced", ErrChanged, s.size)
		}
		return n, err
	}
	off := index * int64(len(buf))
	want := int(min(int64(len(buf)), s.size-off))
	if want <= 0 {
		return 0, nil
	}
	n, err = s.file.ReadAt(buf[:want], off)
	if n < want {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it ended after %d bytes, it had %d", ErrChanged, off+int64(n), s.size)
		}
		return n, err
	}
	_, err = s.unchanged()
	return n, err
}

// unchanged compares size and mtime of a path with those at the start.
func (s *source) unchanged() (now os.FileInfo, err error) {
	if now, err = s.file.Stat(); err != nil {
		return nil, err
	}
	if now.Size() != s.info.Size() || !now.ModTime().Equal(s.info.ModTime()) {
		return nil, fmt.Errorf("%w: %d bytes of %s, then %d bytes of %s", ErrChanged, s.info.Size(),
			s.info.ModTime().Format(time.RFC3339Nano), now.Size(), now.ModTime().Format(time.RFC3339Nano))
	}
	return now, nil
}

// stopReading makes a read that waits for input return when ctx ends, where
// the stream allows it: by SetReadDeadline, else by Close.
func (s *source) stopReading(ctx context.Context) (stop func() bool) {
	switch r := s.stream.(type) {
	case interface{ SetReadDeadline(t time.Time) error }:
		return context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	case io.Closer:
		return context.AfterFunc(ctx, func() { _ = r.Close() })
	}
	return func() bool { return false }
}

func (s *source) close() error {
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}
