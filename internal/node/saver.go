package node

import (
	"log/slog"
	"maps"
	"sync"
)

// saver writes small state to the home folder, off the loop: each file's newest
// content, at most one write under way. What it keeps is a help at the next
// start, not a promise, unless flush was waited for: the table and the roster come
// back from the others too, if these have heard.
type saver struct {
	home *home
	log  *slog.Logger

	mu       sync.Mutex
	changed  *sync.Cond
	waiting  map[string][]byte
	saves    uint64           // asked for so far
	finished uint64           // of them, written or overtaken
	failed   map[string]error // by file: why its last write failed
	closed   bool
	ended    bool
	done     chan struct{}
}

func newSaver(h *home, log *slog.Logger) *saver {
	s := &saver{home: h, log: log, waiting: make(map[string][]byte), failed: make(map[string]error), done: make(chan struct{})}
	s.changed = sync.NewCond(&s.mu)
	go s.run()
	return s
}

// save replaces the content of a file soon.
func (s *saver) save(name string, content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting[name] = content
	s.saves++
	s.changed.Broadcast()
}

// flush waits until what was to be saved is on the disk, and tells why the last
// write of a file failed.
func (s *saver) flush(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for saves := s.saves; s.finished < saves; {
		if s.ended {
			return errStopped
		}
		s.changed.Wait()
	}
	return s.failed[name]
}

// close writes what is waiting and ends.
func (s *saver) close() {
	s.mu.Lock()
	s.closed = true
	s.changed.Broadcast()
	s.mu.Unlock()
	<-s.done
}

func (s *saver) run() {
	defer close(s.done)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.waiting) == 0 && !s.closed {
			s.changed.Wait()
		}
		if len(s.waiting) == 0 {
			s.ended = true
			s.changed.Broadcast()
			return
		}
		batch, saves := s.waiting, s.saves
		s.waiting = make(map[string][]byte)
		s.mu.Unlock()
		failed := make(map[string]error)
		for name, content := range batch {
			if failed[name] = s.home.write(name, content); failed[name] != nil {
				s.log.Warn("state not saved", "file", s.home.path(name), "err", failed[name])
			}
		}
		s.mu.Lock()
		maps.Copy(s.failed, failed)
		s.finished = saves
		s.changed.Broadcast()
	}
}
