package api

import (
	"errors"
	"io"
	"sync"
)

// source is the body of a put. net/http waits for a Read under way even after
// the context has ended, and a terminal or pipe may keep one waiting for ever;
// so the reading is done by a goroutine that abandon leaves behind, and which
// ends with the Read it is in.
type source struct {
	*io.PipeReader
	mu  sync.Mutex // guards err
	err error      // what the reader failed with
}

func newSource(r io.Reader) *source {
	pr, pw := io.Pipe()
	s := &source{PipeReader: pr}
	go s.pump(pw, r)
	return s
}

// pump copies r to w until r ends or fails, or the other end is closed.
func (s *source) pump(w *io.PipeWriter, r io.Reader) {
	buf := make([]byte, 256<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return // nobody wants more
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.mu.Lock()
				s.err = err
				s.mu.Unlock()
			}
			_ = w.CloseWithError(err) // never fails
			return
		}
	}
}

// abandon ends a Read under way.
func (s *source) abandon() { _ = s.Close() } // never fails

// failed returns what the reader failed with.
func (s *source) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
