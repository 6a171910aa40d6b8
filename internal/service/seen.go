package service

import (
	"sync"

	"atoll.example/atoll/internal/id"
)

// maxSeen bounds the signed blocks whose newest version is remembered.
const maxSeen = 4096

// seen remembers the newest seq of the signed blocks that this member's user
// wrote or read since it started, so that a read by one replica alone (`dht get
// --any`) never goes back in time: monotonic reads and read-your-writes, Terry et
// al., PDIS 1994. One of many is forgotten for a new one; it costs only this.
type seen struct {
	mu  sync.Mutex
	seq map[id.GUID]uint64
}

func (s *seen) note(g id.GUID, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seq == nil {
		s.seq = make(map[id.GUID]uint64)
	}
	if _, known := s.seq[g]; !known && len(s.seq) >= maxSeen {
		for old := range s.seq {
			delete(s.seq, old)
			break
		}
	}
	s.seq[g] = max(s.seq[g], seq)
}

func (s *seen) last(g id.GUID) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seq[g]
}
