package sim

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
)

// The set checker knows what clients were promised and what is on every disk.
//
//   - acknowledged ⇒ bytes and claim are durable on W disks at that instant;
//   - an acknowledged block is never not_found, and its copies never fall
//     below W but by injected destruction;
//   - bytes that come back have the name that was asked for;
//   - one claim's removal leaves the others' block alone;
//   - after faults have ended: everything acknowledged reads, has k copies,
//     and what was removed stays removed.
type setChecker struct {
	blocks map[id.GUID]*blockModel
	order  []*blockModel // by first put
	w, k   int

	fail  func(kind, what string)
	moved func(b *blockModel, by int) // if set: a copy came (1) or went (−1)

	Acked, Removes int64 // acknowledged puts and removes
}

// blockModel is a content block and the claims on it.
type blockModel struct {
	guid   id.GUID
	bytes  []byte
	claims []*claimModel
	disks  map[Ref]bool // nodes on whose disks the bytes are good; ranged over for counting only
	warned bool
}

// claimModel is what was asked and answered about one (owner, claim): enough
// to say whether it must be live, must be gone, or may be either.
type claimModel struct {
	owner [32]byte
	claim [16]byte

	putAsked, putAcked       uint64 // highest stamps
	removeAsked, removeAcked uint64
}

// live: acknowledged, and no removal asked that would cover it.
func (c *claimModel) live() bool { return c.putAcked > c.removeAsked }

// gone: a removal was acknowledged that covers all that was ever put.
func (c *claimModel) gone() bool {
	return c.putAsked == 0 || c.removeAcked > 0 && c.removeAcked >= c.putAsked
}

func newSetChecker(k int, fail func(kind, what string)) *setChecker {
	return &setChecker{blocks: make(map[id.GUID]*blockModel), k: k, w: (k + 2) / 2, fail: fail}
}

// asked opens a put of block under a claim.
func (s *setChecker) asked(block []byte, owner [32]byte, claim [16]byte, stamp uint64) *blockModel {
	g := id.GUID(blake3.Sum256(block))
	b := s.blocks[g]
	if b == nil {
		b = &blockModel{guid: g, bytes: block, disks: make(map[Ref]bool)}
		s.blocks[g] = b
		s.order = append(s.order, b)
	}
	c := b.claim(owner, claim)
	c.putAsked = max(c.putAsked, stamp)
	return b
}

func (b *blockModel) claim(owner [32]byte, claim [16]byte) *claimModel {
	for _, c := range b.claims {
		if c.owner == owner && c.claim == claim {
			return c
		}
	}
	c := &claimModel{owner: owner, claim: claim}
	b.claims = append(b.claims, c)
	return c
}

// must reports that the block has to be there.
func (b *blockModel) must() bool {
	for _, c := range b.claims {
		if c.live() {
			return true
		}
	}
	return false
}

// put reports that the block was ever put: operations that are left out of a
// run leave blocks that were not.
func (b *blockModel) put() bool {
	return slices.ContainsFunc(b.claims, func(c *claimModel) bool { return c.putAsked > 0 })
}

// gone reports that no read may return the block any more.
func (b *blockModel) gone() bool {
	for _, c := range b.claims {
		if !c.gone() {
			return false
		}
	}
	return true
}

// acked judges the acknowledgement of a put: bytes and claim durable on W
// disks. certs is on how many disks the claim is.
func (s *setChecker) acked(b *blockModel, owner [32]byte, claim [16]byte, stamp uint64, certs int, excused bool) {
	s.Acked++
	c := b.claim(owner, claim)
	if stamp > c.removeAsked && !excused {
		if n := len(b.disks); n < s.w {
			s.fail("ack", fmt.Sprintf("block %s acknowledged with its bytes durable on %d disks, W is %d", b.guid.Short(), n, s.w))
		}
		if certs < s.w {
			s.fail("ack", fmt.Sprintf("block %s acknowledged with its claim durable on %d disks, W is %d", b.guid.Short(), certs, s.w))
		}
	}
	c.putAcked = max(c.putAcked, stamp)
}

// removeAcked judges the acknowledgement of a removal.
func (s *setChecker) removeAcked(b *blockModel, owner [32]byte, claim [16]byte, stamp uint64, tombs int) {
	s.Removes++
	if tombs < s.w {
		s.fail("ack", fmt.Sprintf("removal of %s acknowledged with its tombstone durable on %d disks, W is %d", b.guid.Short(), tombs, s.w))
	}
	c := b.claim(owner, claim)
	c.removeAcked = max(c.removeAcked, stamp)
}

// onDisk follows the disks: n has, or no longer has, good bytes of g. Injected
// says that a fault took them.
func (s *setChecker) onDisk(n Ref, g id.GUID, has, injected bool) {
	b := s.blocks[g]
	if b == nil {
		return
	}
	if b.disks[n] == has {
		return
	}
	if has {
		b.disks[n] = true
	} else {
		delete(b.disks, n)
	}
	if s.moved != nil {
		by := 1
		if !has {
			by = -1
		}
		s.moved(b, by)
	}
	if has {
		return
	}
	if !injected && b.must() && len(b.disks) < s.w {
		s.fail("copy dropped", fmt.Sprintf("the pool deleted a copy of %s, which leaves %d of W = %d", g.Short(), len(b.disks), s.w))
	}
}

// lost lists acknowledged blocks without a good copy on any disk.
func (s *setChecker) lost() (n int64) {
	for _, b := range s.order {
		if b.must() && len(b.disks) == 0 {
			n++
			if !b.warned {
				b.warned = true
				s.fail("acknowledged write lost", fmt.Sprintf("no disk has %s", b.guid.Short()))
			}
		}
	}
	return n
}

// intact reports that every acknowledged block has its bytes on at least n
// disks.
func (s *setChecker) intact(n int) bool {
	for _, b := range s.order {
		if b.must() && len(b.disks) < n {
			return false
		}
	}
	return true
}

// regModel is one signed block: a register per GUID.
type regModel struct {
	owner  [32]byte
	salt   []byte
	guid   id.GUID
	stable bool // no member came or went by anybody's view: then it is a register

	ackedSeq uint64                // highest acknowledged
	readSeq  uint64                // highest that a read has returned
	values   map[uint64][][32]byte // hashes issued, by seq
	acked    map[uint64][32]byte   // hash acknowledged, by seq
	seen     map[Ref]uint64        // highest seq each client read
	disks    map[Ref]uint64        // seq that each node knows to be on its disk, read or not
	last     dht.Signed            // written last
}

// evicted ends the stability of the signed blocks whose set a node has left, or
// has lost sight of, by n's own view: no fault needs to have been injected for
// that, delays and losses suffice.
func (r *dhtRun) evicted(n Ref, ev trace.Event) {
	if ev.Kind != "dht.gone" {
		return
	}
	for _, m := range r.reg.regs {
		if !m.stable {
			continue
		}
		for _, g := range r.nearest(m.guid, r.cfg.K) {
			m.stable = m.stable && g != ev.Peer && g != r.e.Handle(n).GUID
		}
	}
}

// nearest are the count running nodes nearest to key: its set.
func (r *dhtRun) nearest(key id.GUID, count int) []id.GUID {
	var gs []id.GUID
	for n := 1; n < len(r.peers); n++ {
		if r.peers[n].state == running {
			gs = append(gs, r.e.Handle(Ref(n)).GUID)
		}
	}
	slices.SortFunc(gs, func(a, b id.GUID) int { return id.CmpDist(key, a, b) })
	return gs[:min(count, len(gs))]
}

// forked reports whether the owner's devices ever gave two values to one seq:
// then "equivocation" is a right answer, until a higher seq is written.
func (m *regModel) forked() bool {
	for _, hs := range m.values {
		for _, h := range hs {
			if h != hs[0] {
				return true
			}
		}
	}
	return false
}

// regChecker judges signed blocks.
type regChecker struct {
	regs []*regModel
	fail func(kind, what string)
	note func(what string)

	Writes, Reads, Stale, Forks int64
}

// onDisk follows the disks: what n stores is never below what it stored before.
func (r *regChecker) onDisk(n Ref, g id.GUID, record []byte) {
	rec, err := dht.DecodeSigned(record)
	if err != nil {
		r.fail("wrong bytes", fmt.Sprintf("signed block %s stored: %v", g.Short(), err))
		return
	}
	for _, m := range r.regs {
		if m.guid != g {
			continue
		}
		if rec.Seq < m.disks[n] {
			r.fail("seq fell", fmt.Sprintf("signed block %s from %d to %d on one disk", g.Short(), m.disks[n], rec.Seq))
		}
		m.disks[n] = rec.Seq
	}
}

// forget: n starts with what can be read of its disk, or without it.
func (r *regChecker) forget(n Ref, d *disk) {
	for _, m := range r.regs {
		if k := (store.Key{Family: store.Signed, GUID: m.guid}); d.rotten[k] || d.data[k] == nil {
			delete(m.disks, n)
		}
	}
}

func (r *regChecker) wrote(m *regModel, seq uint64, hash [32]byte) {
	r.Writes++
	if h, ok := m.acked[seq]; ok && h != hash {
		r.Forks++
		what := fmt.Sprintf("two values acknowledged under seq %d of %s", seq, m.guid.Short())
		if m.stable {
			r.fail("fork", what)
		} else {
			r.note("fork across set changes: " + what)
		}
	}
	m.acked[seq] = hash
	m.ackedSeq = max(m.ackedSeq, seq)
}

// read judges a read by client n: bound is the highest seq that had been
// acknowledged or read by anybody when it was asked.
func (r *regChecker) read(m *regModel, n Ref, bound, seq uint64, hash [32]byte) {
	r.Reads++
	known := false
	for _, h := range m.values[seq] {
		known = known || h == hash
	}
	if !known {
		r.fail("wrong bytes", fmt.Sprintf("signed block %s returned a value of seq %d that nobody wrote", m.guid.Short(), seq))
	}
	if seq < bound {
		r.Stale++
		what := fmt.Sprintf("signed block %s: seq %d read after %d was acknowledged or read", m.guid.Short(), seq, bound)
		if m.stable {
			r.fail("stale read", what)
		} else if r.Stale <= 3 {
			r.note(what)
		}
	}
	m.readSeq = max(m.readSeq, seq)
	m.seen[n] = max(m.seen[n], seq)
}

// sub is the sub-key of a claim or tombstone in a store.
func sub(owner [32]byte, claim [16]byte) string { return string(owner[:]) + string(claim[:]) }

// countKeys is on how many of the disks a key is durable.
func countKeys(e *Engine, k store.Key) (n int) {
	for i := range e.nodes {
		if d := e.nodes[i].disk; d != nil {
			if _, ok := d.data[k]; ok {
				n++
			}
		}
	}
	return n
}

// fakeSign replaces Ed25519 in simulated pools: a keyed hash that whoever
// knows the public key can make. No simulated node forges.
func fakeSign(pub [32]byte, domain string, msg []byte) (sig [64]byte) {
	h := blake3.New()
	_, _ = h.Write(pub[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(domain)))
	_, _ = h.Write(n[:])
	_, _ = h.WriteString(domain)
	_, _ = h.Write(msg)
	copy(sig[:32], h.Sum(nil))
	return sig
}

func fakeVerify(pub [32]byte, domain string, msg []byte, sig [64]byte) bool {
	return fakeSign(pub, domain, msg) == sig
}

// wallStamp is the stamp an owner gives now.
func wallStamp(wall int64, now machine.Time) uint64 {
	return uint64(wall + int64(now)/int64(machine.Millisecond))
}
