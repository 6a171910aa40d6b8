package dht

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// entry is what this node remembers of one GUID: 112 bytes and its place in
// the tree. Certificates and bytes are on disk only.
type entry struct {
	guid    id.GUID
	tag     sum128 // digest of kind and version, in the tree's sums
	holders uint64 // peers known to have the bytes, by slot
	first   claim  // one claim in place: most blocks have no more
	x       *extra
	size    uint32
	k       uint8
	role    Role
	flags   uint8
}

const (
	flagHave     uint8 = 1 << iota // the bytes, or the signed record, are on this disk
	flagSigned                     // a signed block
	flagFirst                      // first is in use
	flagDiverted                   // claims here, bytes at the holder of a durable pointer
	flagBad                        // the bytes, or the signed record, failed their check and are being fetched again
	flagAsked                      // set and holders were asked who has it
)

// extra is for entries that need more.
type extra struct {
	claims  []claim
	ver     version
	pointed uint64 // holders with a durable pointer, by slot
}

// claim is a live claim or a tombstone.
type claim struct {
	id    [16]byte
	stamp uint64
	owner uint32 // interned
	tomb  bool
}

// version is the state of a signed block.
type version struct {
	seq     uint64
	hash    [32]byte
	removed bool
	fork    bool // a second record of the same seq is kept
}

// newer orders versions: higher (seq, value hash) wins.
func (v *version) newer(w *version) bool {
	if v.seq != w.seq {
		return v.seq > w.seq
	}
	return bytes.Compare(v.hash[:], w.hash[:]) > 0
}

// is reports whether v and w are one version of a block.
func (v version) is(w version) bool { return v.seq == w.seq && v.hash == w.hash }

func (e *entry) have() bool   { return e.flags&flagHave != 0 }
func (e *entry) signed() bool { return e.flags&flagSigned != 0 }
func (e *entry) seq() uint64  { return e.ver().seq }

func (e *entry) extra() *extra {
	if e.x == nil {
		e.x = &extra{}
	}
	return e.x
}

// claims calls f for each claim and tombstone.
func (e *entry) claims(f func(c *claim)) {
	if e.flags&flagFirst != 0 {
		f(&e.first)
	}
	if e.x != nil {
		for i := range e.x.claims {
			f(&e.x.claims[i])
		}
	}
}

func (e *entry) find(owner uint32, c [16]byte, tomb bool) *claim {
	if e.flags&flagFirst != 0 && e.first.owner == owner && e.first.tomb == tomb && e.first.id == c {
		return &e.first
	}
	if e.x != nil {
		for i := range e.x.claims {
			if k := &e.x.claims[i]; k.owner == owner && k.tomb == tomb && k.id == c {
				return k
			}
		}
	}
	return nil
}

// set adds c or raises the stamp of the one there.
func (e *entry) set(c claim) {
	if k := e.find(c.owner, c.id, c.tomb); k != nil {
		k.stamp = max(k.stamp, c.stamp)
		return
	}
	if e.flags&flagFirst == 0 {
		e.first = c
		e.flags |= flagFirst
		return
	}
	x := e.extra()
	x.claims = append(x.claims, c)
}

// drop takes the live claim of (owner, c) out.
func (e *entry) drop(owner uint32, c [16]byte) {
	if e.flags&flagFirst != 0 && e.first.owner == owner && !e.first.tomb && e.first.id == c {
		e.flags &^= flagFirst
		if e.x != nil && len(e.x.claims) > 0 {
			last := len(e.x.claims) - 1
			e.first, e.x.claims = e.x.claims[last], e.x.claims[:last]
			e.flags |= flagFirst
		}
		return
	}
	if e.x != nil {
		e.x.claims = slices.DeleteFunc(e.x.claims, func(k claim) bool {
			return k.owner == owner && !k.tomb && k.id == c
		})
	}
}

// count returns the number of live claims and of tombstones.
func (e *entry) count() (live, tombs int) {
	e.claims(func(c *claim) {
		if c.tomb {
			tombs++
		} else {
			live++
		}
	})
	return live, tombs
}

// removed reports that all claims known here have ended, the last one by stamp.
func (e *entry) removed() (stamp uint64, all bool) {
	live, tombs := e.count()
	e.claims(func(c *claim) { stamp = max(stamp, c.stamp) })
	return stamp, live == 0 && tombs > 0
}

// claimed reports that owner has as many claims on e as it may, once ch is done,
// and that c is none of them. e may be nil.
func (e *entry) claimed(owner uint32, c [16]byte, ch *change) bool {
	if e == nil {
		e = &entry{}
	}
	n := 0
	of := func(k *claim, d int) {
		if !k.tomb && k.owner == owner {
			n += d
		}
	}
	e.claims(func(k *claim) { of(k, 1) })
	for i := range ch.drops {
		of(&ch.drops[i], -1)
	}
	for i := range ch.claims {
		of(&ch.claims[i], 1)
	}
	return n >= MaxPerOwner && e.find(owner, c, false) == nil
}

// dead reports that only tombstones are left: no copy is wanted. A node without
// the bytes knows no claims either; then it is dead unless others hold it.
func (e *entry) dead() bool {
	if e.signed() {
		return e.x == nil || e.x.ver.seq == 0
	}
	live, tombs := e.count()
	return live == 0 && tombs > 0 && (e.have() || e.holders == 0)
}

// items is e's line in a SyncKeys.
func (e *entry) item() item {
	it := item{guid: e.guid, tag: e.tag}
	if e.have() {
		it.flags |= itemHave
	}
	if e.signed() {
		it.flags |= itemSigned
	}
	live, tombs := e.count()
	if live > 0 {
		it.flags |= itemClaims
	}
	if tombs > 0 {
		it.flags |= itemTombs
	}
	return it
}

// owners interns owner keys: four bytes in place of thirty-two per claim.
type owners struct {
	keys [][32]byte
	nums map[[32]byte]uint32
}

func (o *owners) num(key [32]byte) uint32 {
	if n, ok := o.nums[key]; ok {
		return n
	}
	if o.nums == nil {
		o.nums = make(map[[32]byte]uint32)
	}
	n := uint32(len(o.keys))
	o.keys = append(o.keys, key)
	o.nums[key] = n
	return n
}

func (o *owners) known(key [32]byte) (uint32, bool) {
	n, ok := o.nums[key]
	return n, ok
}

// tagOf computes e's tag: BLAKE3/128 of GUID ‖ kind ‖ version, where version
// is (seq, value hash), or the sorted (owner, claim, stamp, live/tombstone).
// Kind tells whether the bytes are here, so that equal digests mean equal
// copies, not only equal knowledge.
func (o *owners) tagOf(e *entry) sum128 {
	b := make([]byte, 0, 192)
	b = append(b, e.guid[:]...)
	b = append(b, e.flags&(flagHave|flagSigned))
	if e.signed() {
		if e.x != nil {
			b = binary.BigEndian.AppendUint64(b, e.x.ver.seq)
			b = append(b, e.x.ver.hash[:]...)
			if e.x.ver.fork {
				b = append(b, 1)
			}
		}
	} else {
		cs := make([]claim, 0, 4)
		e.claims(func(c *claim) { cs = append(cs, *c) })
		if len(cs) > 1 {
			slices.SortFunc(cs, func(a, b claim) int {
				if c := bytes.Compare(o.keys[a.owner][:], o.keys[b.owner][:]); c != 0 {
					return c
				}
				if c := bytes.Compare(a.id[:], b.id[:]); c != 0 {
					return c
				}
				if a.tomb != b.tomb {
					if a.tomb {
						return 1
					}
					return -1
				}
				return 0
			})
		}
		for i := range cs {
			b = append(b, o.keys[cs[i].owner][:]...)
			b = append(b, cs[i].id[:]...)
			b = binary.BigEndian.AppendUint64(b, cs[i].stamp)
			if cs[i].tomb {
				b = append(b, 1)
			} else {
				b = append(b, 0)
			}
		}
	}
	h := blake3.Sum256(b)
	return sum128{binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:16])}
}

// tagAsHeld is e's tag, were its bytes here.
func (o *owners) tagAsHeld(e *entry) sum128 {
	if e.have() {
		return e.tag
	}
	held := *e
	held.flags |= flagHave
	return o.tagOf(&held)
}
