package roster

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/zeebo/blake3"
)

const numBuckets = 256

// buckets sorts the tags of the set by their first byte and hashes each bucket,
// so that two rosters find where they differ without listing all they have.
type buckets struct {
	tags  [numBuckets][]Tag // ascending
	sums  [numBuckets]Tag
	stale [numBuckets]bool
	all   [32]byte
	fresh bool // all is up to date
}

func cmpTags(a, b Tag) int { return bytes.Compare(a[:], b[:]) }

func (s *buckets) add(t Tag) {
	b := &s.tags[t[0]]
	if at, ok := slices.BinarySearchFunc(*b, t, cmpTags); !ok {
		*b = slices.Insert(*b, at, t)
		s.stale[t[0]], s.fresh = true, false
	}
}

func (s *buckets) drop(t Tag) {
	b := &s.tags[t[0]]
	if at, ok := slices.BinarySearchFunc(*b, t, cmpTags); ok {
		*b = slices.Delete(*b, at, at+1)
		s.stale[t[0]], s.fresh = true, false
	}
}

// sum is the hash of one bucket; that of an empty one is zero.
func (s *buckets) sum(i int) Tag {
	if s.stale[i] {
		s.stale[i] = false
		s.sums[i] = Tag{}
		if len(s.tags[i]) > 0 {
			h := blake3.New()
			for _, t := range s.tags[i] {
				_, _ = h.Write(t[:]) // a hash takes every byte
			}
			copy(s.sums[i][:], h.Sum(nil))
		}
	}
	return s.sums[i]
}

// digest is the hash of all buckets.
func (s *buckets) digest(count int) [32]byte {
	if !s.fresh {
		h := blake3.New()
		_, _ = h.WriteString("atoll/roster/1")
		_, _ = h.Write(binary.BigEndian.AppendUint32(nil, uint32(count)))
		for i := range s.tags {
			t := s.sum(i)
			_, _ = h.Write(t[:])
		}
		h.Sum(s.all[:0])
		s.fresh = true
	}
	return s.all
}

// SetDigest is a hash of all entries: two rosters with the same one hold the
// same. It goes into the hello of a handshake.
func (r *Roster) SetDigest() [32]byte { return r.sums.digest(len(r.byTag)) }
