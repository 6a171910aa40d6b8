package id

import "encoding/binary"

// Indexed is what an Index finds things in: GUIDs by number.
type Indexed interface {
	// GUIDAt returns the GUID of a number that was added. The Index does not
	// keep the pointer.
	GUIDAt(number uint32) *GUID
}

// Index finds numbers, such as places in a slice, by GUID: a hash table of the
// numbers alone, 5 to 11 bytes each, for those who hold the GUIDs anyway. A map
// would hold them once more. The zero Index is empty. Numbers are at least 1
// and below MaxIndexed.
type Index struct {
	slots []uint32 // number, above it eight bits of the hash; 0: free. Linear probing
	n     int
}

// MaxIndexed is the first number that an Index cannot hold.
const MaxIndexed = 1 << 24

// Len returns how many numbers the index holds.
func (x *Index) Len() int { return x.n }

// hash spreads a prefix. GUIDs are random already, those of tests are not.
func hash(prefix uint64) (at, tag uint32) {
	h := prefix * 0x9e3779b97f4a7c15
	return uint32(h >> 32), uint32(h) & 0xff000000
}

// Find returns the number of g, 0 if there is none.
func (x *Index) Find(g *GUID, in Indexed) uint32 {
	if len(x.slots) == 0 {
		return 0
	}
	at, tag := hash(binary.BigEndian.Uint64(g[:8]))
	mask := uint32(len(x.slots) - 1)
	for i := at & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return 0
		}
		if s&0xff000000 == tag {
			if n := s & (MaxIndexed - 1); *in.GUIDAt(n) == *g {
				return n
			}
		}
	}
}

// FindPrefix returns the number of the one GUID that begins with the 8 bytes of
// prefix, and how many begin so: 0, 1, or 2 for more than one.
func (x *Index) FindPrefix(prefix uint64, in Indexed) (number uint32, matches int) {
	if len(x.slots) == 0 {
		return 0, 0
	}
	at, tag := hash(prefix)
	mask := uint32(len(x.slots) - 1)
	for i := at & mask; ; i = (i + 1) & mask {
		s := x.slots[i]
		if s == 0 {
			return number, matches
		}
		if s&0xff000000 != tag {
			continue
		}
		n := s & (MaxIndexed - 1)
		if binary.BigEndian.Uint64(in.GUIDAt(n)[:8]) != prefix {
			continue
		}
		if matches == 1 {
			return 0, 2
		}
		number, matches = n, 1
	}
}

// Add makes number be found by its GUID, which must not be in the index.
func (x *Index) Add(number uint32, in Indexed) {
	if number == 0 || number >= MaxIndexed {
		panic("id: number out of an index's range")
	}
	if 4*(x.n+1) > 3*len(x.slots) {
		x.resize(max(16, 2*len(x.slots)), in)
	}
	x.put(number, in)
	x.n++
}

func (x *Index) resize(slots int, in Indexed) {
	old := x.slots
	x.slots = make([]uint32, slots)
	for _, s := range old {
		if s != 0 {
			x.put(s&(MaxIndexed-1), in)
		}
	}
}

// Fit gives back memory when most numbers have been removed.
func (x *Index) Fit(in Indexed) {
	n := len(x.slots)
	for n > 16 && 3*x.n < n {
		n /= 2
	}
	if n < len(x.slots) {
		x.resize(n, in)
	}
}

func (x *Index) put(number uint32, in Indexed) {
	at, tag := hash(binary.BigEndian.Uint64(in.GUIDAt(number)[:8]))
	mask := uint32(len(x.slots) - 1)
	i := at & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = tag | number
}

// Remove takes number out, if it is in. Its GUID must still be found in in.
func (x *Index) Remove(number uint32, in Indexed) {
	if len(x.slots) == 0 {
		return
	}
	mask := uint32(len(x.slots) - 1)
	at, tag := hash(binary.BigEndian.Uint64(in.GUIDAt(number)[:8]))
	i := at & mask
	for x.slots[i] != tag|number {
		if x.slots[i] == 0 {
			return
		}
		i = (i + 1) & mask
	}
	x.n--
	// Move up those behind that would not be found over the gap.
	for j := i; ; {
		j = (j + 1) & mask
		s := x.slots[j]
		if s == 0 {
			break
		}
		home, _ := hash(binary.BigEndian.Uint64(in.GUIDAt(s & (MaxIndexed - 1))[:8]))
		if (j-home)&mask >= (j-i)&mask {
			x.slots[i], i = s, j
		}
	}
	x.slots[i] = 0
}
