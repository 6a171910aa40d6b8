package diskstore

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"atoll.example/atoll/internal/store"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// sampleEvery is how old the file system's answer may be; what we write
// meanwhile is subtracted.
const sampleEvery = 250 * time.Millisecond

// space does the arithmetic of the limit. Usage reads it on every put, so it
// is made of atomics.
type space struct {
	fs    vfs.FS
	dir   string
	begin time.Time

	limit, used, blocks atomic.Int64
	written             atomic.Int64 // bytes since the sample
	fsFree              atomic.Int64
	sampledAt           atomic.Int64 // nanoseconds since begin; 0 = never

	mu       sync.Mutex
	reserved int64 // bytes of block files on their way
}

func newSpace(f vfs.FS, dir string) *space {
	s := &space{fs: f, dir: dir, begin: time.Now()}
	s.sample()
	return s
}

func (s *space) set(limit int64, c counters) {
	s.limit.Store(limit)
	s.used.Store(c.used)
	s.blocks.Store(c.blocks)
}

// sample asks the file system. It reports whether that knows.
func (s *space) sample() (free int64, known bool) {
	u, err := s.fs.GetDiskUsage(s.dir)
	free, known = math.MaxInt64/2, err == nil // half, so that sums do not overflow
	if known && u.AvailBytes < math.MaxInt64/2 {
		free = int64(u.AvailBytes)
	}
	s.written.Store(0)
	s.fsFree.Store(free)
	s.sampledAt.Store(max(1, int64(time.Since(s.begin))))
	return free, known
}

func (s *space) now() store.Space {
	at := s.sampledAt.Load()
	if since := int64(time.Since(s.begin)); since-at > int64(sampleEvery) && s.sampledAt.CompareAndSwap(at, since) {
		s.sample()
	}
	return store.Space{
		Limit:  s.limit.Load(),
		Used:   s.used.Load(),
		Blocks: s.blocks.Load(),
		FSFree: s.fsFree.Load() - s.written.Load(),
	}
}

// reserve claims n bytes for block files about to be written.
func (s *space) reserve(n int64, urgent bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := s.now()
	sp.Used += s.reserved
	if !sp.Fits(n, urgent) {
		return false
	}
	s.reserved += n
	return true
}

func (s *space) release(n int64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

// fits asks for a batch that grows the store by n bytes, own of which it has
// reserved and written already.
func (s *space) fits(n, own int64, urgent bool) bool {
	s.mu.Lock()
	others := s.reserved - own
	s.mu.Unlock()
	sp := s.now()
	sp.Used += others
	sp.FSFree += own
	return sp.Fits(n, urgent)
}
