package node

import (
	"log/slog"
	"sync"
)

// saver writes small state to the home folder, off the loop: each file's newest
// content, at most one write under way. What it keeps is a help at the next
// start, not a promise: the table and the roster come back from the others too.
type saver struct {
	home *home
	log  *slog.Logger

	mu      sync.Mutex
	wake    *sync.Cond
	waiting map[string][]byte
	closed  bool
	done    chan struct{}
}

func newSaver(h *home, log *slog.Logger) *saver {
	s := &saver{home: h, log: log, waiting: make(map[string][]byte), done: make(chan struct{})}
	s.wake = sync.NewCond(&s.mu)
	go s.run()
	return s
}

// save replaces the content of a file soon.
func (s *saver) save(name string, content []byte) {
	s.mu.Lock()
	s.waiting[name] = content
	s.mu.Unlock()
	s.wake.Signal()
}

// close writes what is waiting and ends.
func (s *saver) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wake.Signal()
	<-s.done
}

func (s *saver) run() {
	defer close(s.done)
	for {
		s.mu.Lock()
		for len(s.waiting) == 0 && !s.closed {
			s.wake.Wait()
		}
		if len(s.waiting) == 0 {
			s.mu.Unlock()
			return
		}
		batch := s.waiting
		s.waiting = make(map[string][]byte)
		s.mu.Unlock()
		for name, content := range batch {
			if err := s.home.write(name, content); err != nil {
				s.log.Warn("state not saved", "file", s.home.path(name), "err", err)
			}
		}
	}
}
