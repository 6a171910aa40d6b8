package dht

import (
	"bytes"
	"math/bits"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire"
)

// merged is the outcome of merging records into this node's disk.
type merged struct {
	no    code       // 0: done, and durable
	stamp uint64     // of the tombstone, with codeRemoved
	want  bool       // claims without bytes: send the bytes
	kept  bool       // after a tombstone: other claims keep the bytes
	cert  *StoreCert // the first of the claims asked for that stands
	free  uint64
}

// onCopy stores a block, or claims and tombstones of one that is here.
func (n *Node) onCopy(p *peer, m *copyMsg) {
	if !m.sum.ok(m.guid, m.block) {
		n.strike(p, "copy of bytes that do not match their name")
		n.no(p, m.req, &refuseMsg{code: codeBadName})
		return
	}
	if !n.checkRecords(p, m.guid, len(m.block), m.certs, m.tombs) {
		n.no(p, m.req, &refuseMsg{code: codeBadSig})
		return
	}
	if n.pending+int64(len(m.block)) > 2*n.cfg.MaxBytes {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	switch {
	case !n.holds(m.guid):
		n.keepCopy(p, m)
	case len(m.certs) > 0:
		n.proveOwn(p, m)
	case len(m.block) > 0:
		n.compareOwn(p, m)
	default:
		n.keepCopy(p, m)
	}
}

// proveOwn reads a copy that is here before a further claim on it is acknowledged:
// it may have rotted since, and then the bytes are written again, or asked for.
func (n *Node) proveOwn(p *peer, m *copyMsg) {
	if n.serving >= maxServing {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	n.serving++
	n.pending += int64(len(m.block))
	n.loadBlock(m.guid, func([]byte) {
		n.serving--
		n.pending -= int64(len(m.block))
		n.keepCopy(p, m)
	})
}

// keepCopy makes the records of m durable, and the bytes if they are not here, and
// says so.
func (n *Node) keepCopy(p *peer, m *copyMsg) {
	n.pending += int64(len(m.block))
	ok := n.merge(m.guid, m.certs, m.tombs, m.block, m.role, func(r merged) {
		n.pending -= int64(len(m.block))
		switch {
		case r.no == codeFull && m.role == RoleReplica && len(m.block) > 0:
			n.divert(p, m)
			return
		case r.no != 0:
			n.no(p, m.req, &refuseMsg{code: r.no, stamp: r.stamp, after: 50})
			return
		}
		ack := &copyAckMsg{req: m.req, guid: m.guid, want: r.want, free: r.free}
		if r.cert != nil {
			ack.receipts = []Receipt{n.receipt(r.cert, n.roleOf(m.guid, m.role))}
		}
		n.send(p, ack)
	})
	if !ok {
		n.pending -= int64(len(m.block))
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
	}
}

// compareOwn: a reader got wrong bytes from here, and sends good ones. If those
// on the disk differ, they are replaced.
func (n *Node) compareOwn(p *peer, m *copyMsg) {
	n.loadBlock(m.guid, func(b []byte) {
		if bytes.Equal(b, m.block) {
			n.send(p, &copyAckMsg{req: m.req, guid: m.guid})
			return
		}
		if len(b) > 0 {
			n.badBlock(m.guid, store.ErrCorrupt)
		}
		e := n.tree.get(m.guid)
		if e == nil || e.dead() || e.flags&flagBad == 0 || !n.merge(m.guid, nil, nil, m.block, max(e.role, RoleReplica), func(r merged) {
			n.send(p, &copyAckMsg{req: m.req, guid: m.guid, free: r.free})
		}) {
			n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		}
	})
}

// roleOf is the role to be named in a receipt: that of the copy that is here.
func (n *Node) roleOf(g id.GUID, asked Role) Role {
	if e := n.tree.get(g); e != nil && n.pointsAt(e) {
		return RoleDiverted
	}
	return asked
}

func (n *Node) receipt(c *StoreCert, role Role) Receipt {
	r := Receipt{
		Pool: n.cfg.Pool, GUID: c.GUID, Owner: c.Owner, Claim: c.Claim, Stamp: c.Stamp,
		Node: n.me.h.GUID, Role: role, Synced: n.unixMS(),
	}
	r.SignWith(n.cfg.Sign)
	return r
}

// checkRecords verifies what is not known yet; a bad one is a strike.
func (n *Node) checkRecords(p *peer, g id.GUID, size int, certs []StoreCert, tombs []Remove) bool {
	for i := range certs {
		c := &certs[i]
		if c.Pool != n.cfg.Pool || c.GUID != g || size > 0 && int(c.Size) != size {
			n.strike(p, "certificate of something else")
			return false
		}
		if p != n.me && !n.knows(c) && !c.Verify(n.cfg.Verify) {
			n.strike(p, "certificate with a bad signature")
			return false
		}
	}
	for i := range tombs {
		t := &tombs[i]
		if t.Pool != n.cfg.Pool || t.GUID != g {
			n.strike(p, "tombstone of something else")
			return false
		}
		if p != n.me && !n.knowsTomb(t) && !t.Verify(n.cfg.Verify) {
			n.strike(p, "tombstone with a bad signature")
			return false
		}
	}
	return true
}

func (n *Node) knowsTomb(t *Remove) bool {
	e := n.tree.get(t.GUID)
	if e == nil {
		return false
	}
	o, ok := n.owners.known(t.Owner)
	if !ok {
		return false
	}
	k := e.find(o, t.Claim, true)
	return k != nil && k.stamp >= t.Stamp
}

// covers reports whether a tombstone of stamp t ends a claim of stamp c.
func (n *Node) covers(t, c uint64) bool {
	if n.cfg.Bugs.StampReversed {
		return c > t
	}
	return c <= t
}

// subKey is the store's sub-key of a claim or tombstone.
func subKey(owner [32]byte, c [16]byte) string {
	b := make([]byte, 0, store.MaxSub)
	b = append(b, owner[:]...)
	return string(append(b, c[:]...))
}

// merge brings verified records into the store and, once durable, into the
// index; then it calls f. False: too much waits for this GUID.
func (n *Node) merge(g id.GUID, certs []StoreCert, tombs []Remove, block []byte, role Role, f func(merged)) bool {
	return n.exclusive(g, func() {
		n.mergeLocked(g, certs, tombs, block, role, func(r merged) {
			r.free = uint64(max(0, n.cfg.Usage().Free))
			n.release(g)
			f(r)
		})
	})
}

// change is what a merge will do to the entry once it is durable.
type change struct {
	claims []claim
	drops  []claim
	gain   bool // the bytes arrive
	lose   bool // the bytes go with the last claim
	size   uint32
	k      uint8
}

func (n *Node) mergeLocked(g id.GUID, certs []StoreCert, tombs []Remove, block []byte, role Role, f func(merged)) {
	e := n.tree.get(g)
	var b store.Batch
	var ch change

	// Tombstones first: they decide which claims may stand.
	covered := func(owner [32]byte, c [16]byte, stamp uint64) (uint64, bool) {
		for i := range tombs {
			t := &tombs[i]
			if n.cfg.Bugs.PushAfterAbsence && n.knowsTomb(t) {
				continue
			}
			if t.Owner == owner && (t.Claim == c || n.cfg.Bugs.IgnoreClaim) && n.covers(t.Stamp, stamp) {
				return t.Stamp, true
			}
		}
		if e != nil && !n.cfg.Bugs.PushAfterAbsence {
			if o, ok := n.owners.known(owner); ok {
				if t := e.find(o, c, true); t != nil && n.covers(t.stamp, stamp) {
					return t.stamp, true
				}
			}
		}
		return 0, false
	}
	for i := range tombs {
		t := &tombs[i]
		if n.knowsTomb(t) {
			continue
		}
		b.Ops = append(b.Ops, store.Op{
			Key:   store.Key{Family: store.Tombstone, GUID: g, Sub: subKey(t.Owner, t.Claim)},
			Value: Encode(t),
		})
		ch.claims = append(ch.claims, claim{id: t.Claim, stamp: t.Stamp, owner: n.owners.num(t.Owner), tomb: true})
	}
	live := 0
	if e != nil {
		e.claims(func(c *claim) {
			if c.tomb {
				return
			}
			owner := n.owners.keys[c.owner]
			if _, over := covered(owner, c.id, c.stamp); over {
				ch.drops = append(ch.drops, *c)
				b.Ops = append(b.Ops, store.Op{
					Key:    store.Key{Family: store.Claim, GUID: g, Sub: subKey(owner, c.id)},
					Delete: true,
				})
				return
			}
			live++
		})
		ch.k = e.k
	}

	here := e != nil && (e.have() || n.pointsAt(e))
	if role == RoleDiverted && len(block) > 0 && here && e.flags&flagBad == 0 {
		// Two members of the set that divert to one node would count as two for one
		// copy: who asks second finds another host.
		f(merged{no: codeBusy})
		return
	}
	var ended uint64
	spent := false
	var stands []*StoreCert
	for i := range certs {
		c := &certs[i]
		if stamp, over := covered(c.Owner, c.Claim, c.Stamp); over {
			ended = stamp
			continue
		}
		if n.knows(c) {
			stands = append(stands, c)
			continue
		}
		o := n.owners.num(c.Owner)
		if e.claimed(o, c.Claim, &ch) {
			spent = true // from another member, with others: those are taken all the same
			continue
		}
		stands = append(stands, c)
		live++
		b.Ops = append(b.Ops, store.Op{
			Key:   store.Key{Family: store.Claim, GUID: g, Sub: subKey(c.Owner, c.Claim)},
			Value: Encode(c),
		})
		ch.claims = append(ch.claims, claim{id: c.Claim, stamp: c.Stamp, owner: o})
		ch.k = max(ch.k, c.K)
	}
	if e != nil && e.have() && live == 0 && len(ch.drops) > 0 {
		ch.lose = true
		b.Ops = append(b.Ops,
			store.Op{Key: store.Key{Family: store.Block, GUID: g}, Delete: true},
			store.Op{Key: store.Key{Family: store.Head, GUID: g}, Delete: true})
	}
	if e != nil && e.x != nil && live == 0 {
		b.Ops = append(b.Ops, n.unpoint(e)...)
	}
	if len(tombs) > 0 || len(ch.drops) > 0 {
		b.Urgent = true
	}
	if len(certs) > 0 && len(stands) == 0 {
		// Nothing that was asked for can be taken; tombstones may still be new.
		r := merged{no: codeRemoved, stamp: ended}
		if spent {
			r = merged{no: codeClaims}
		}
		n.apply(g, b, ch, role, func(err error) { f(r) })
		return
	}
	switch {
	case len(block) > 0 && live == 0:
		f(merged{no: codeBadSig}) // bytes that nobody claims
		return
	case len(block) > 0 && (!here || e.flags&flagBad != 0 || e.flags&flagDiverted != 0 && role == RoleReplica):
		if !n.room(len(block), role) {
			if e != nil && n.pointsAt(e) {
				break // the pointer stands
			}
			f(merged{no: codeFull})
			return
		}
		ch.gain, ch.size = true, uint32(len(block))
		b.Urgent = false
		b.Ops = append(b.Ops,
			store.Op{Key: store.Key{Family: store.Head, GUID: g}, Value: encodeHead(block, role, n.unixMS())},
			store.Op{Key: store.Key{Family: store.Block, GUID: g}, Value: block, Named: true})
	case !here && len(certs) > 0:
		// Claims alone are worth nothing; tombstones are.
		if len(tombs) > 0 {
			b.Ops, ch.claims = onlyTombs(b.Ops, ch.claims)
			n.apply(g, b, ch, role, func(err error) { f(merged{want: true}) })
			return
		}
		f(merged{want: true})
		return
	}
	n.apply(g, b, ch, role, func(err error) {
		if err != nil {
			f(merged{no: codeFull})
			return
		}
		r := merged{kept: live > 0}
		if len(stands) > 0 {
			r.cert = stands[0]
		}
		f(r)
	})
}

func onlyTombs(ops []store.Op, cs []claim) ([]store.Op, []claim) {
	var o []store.Op
	for _, op := range ops {
		if op.Key.Family != store.Claim || op.Delete {
			o = append(o, op)
		}
	}
	var c []claim
	for _, k := range cs {
		if k.tomb {
			c = append(c, k)
		}
	}
	return o, c
}

// apply makes the batch durable, then changes the index.
func (n *Node) apply(g id.GUID, b store.Batch, ch change, role Role, f func(err error)) {
	if len(b.Ops) == 0 {
		f(nil)
		return
	}
	early := n.cfg.Bugs.AckBeforeFsync && ch.gain
	n.store(g, b, func(err error) {
		if err == nil {
			n.index(g, ch, role)
		}
		if !early {
			f(err)
		}
	})
	if early {
		f(nil)
	}
}

// index notes a change that is on disk.
func (n *Node) index(g id.GUID, ch change, role Role) {
	e := n.entry(g)
	for _, c := range ch.drops {
		e.drop(c.owner, c.id)
	}
	for _, c := range ch.claims {
		e.set(c)
	}
	e.k = max(e.k, ch.k)
	if ch.gain {
		e.flags = e.flags&^(flagBad|flagDiverted) | flagHave
		e.size, e.role = ch.size, role
		n.stats.Stored++
		n.stats.StoredBytes += int64(ch.size)
	}
	if ch.lose {
		e.flags &^= flagHave | flagBad
	}
	if ch.lose || len(ch.drops) > 0 && e.flags&flagDiverted != 0 {
		if live, _ := e.count(); live == 0 {
			// Others lose theirs too, or show in the next comparison that they
			// keep it for another claim.
			e.flags &^= flagDiverted
			e.holders = 0
		}
	}
	n.retag(e)
	if a := n.arcOf(g); a != nil {
		a.stale = true
	}
	if ch.gain {
		if d := n.drain; d != nil && !d.upto.Less(g) {
			d.late = append(d.late, g)
		}
		if f := n.arrivals[g]; f != nil {
			f()
		}
	}
}

// entry returns the entry of g, made if need be.
func (n *Node) entry(g id.GUID) *entry {
	if e := n.tree.get(g); e != nil {
		return e
	}
	e := &entry{guid: g}
	e.tag = n.owners.tagOf(e)
	n.tree.insert(e)
	return e
}

func (n *Node) retag(e *entry) {
	if t := n.owners.tagOf(e); t != e.tag {
		n.tree.retag(e, t)
	}
}

// room is PAST's rule with integers: accept what is at most a tenth (t_pri)
// of the free space, diverted copies at most a twentieth (t_div).
func (n *Node) room(size int, role Role) bool {
	free := n.cfg.Usage().Free
	if role == RoleDiverted {
		return int64(size)*20 <= free
	}
	return int64(size)*10 <= free
}

// Head record:  version u8 | kind u8 | size u32 | role u8 | stored u64
const headRecordSize = 1 + 1 + 4 + 1 + 8

func encodeHead(block []byte, role Role, at uint64) []byte {
	w := wire.Writer{B: make([]byte, 0, headRecordSize)}
	w.U8(recordVersion)
	w.U8(block[4])
	w.U32(uint32(len(block)))
	w.U8(uint8(role))
	w.U64(at)
	return w.B
}

func decodeHead(b []byte) (size uint32, role Role, err error) {
	r := wire.NewReader(b)
	readVersion(r)
	r.U8()
	size = r.U32()
	role = Role(r.U8())
	r.U64()
	if size > MaxBlock || role < RoleReplica || role > RoleStandIn {
		r.Fail(wire.ErrValue)
	}
	return size, role, r.Close()
}

// Restore takes one stored record before Start, in any order. Values of family
// Block may be nil.
func (n *Node) Restore(k store.Key, v []byte) error {
	switch k.Family {
	case store.Head:
		size, role, err := decodeHead(v)
		if err != nil {
			return err
		}
		e := n.entry(k.GUID)
		e.flags |= flagHave
		e.size, e.role = size, role
		n.retag(e)
	case store.Claim:
		c, err := DecodeStoreCert(v)
		if err != nil {
			return err
		}
		e := n.entry(k.GUID)
		e.set(claim{id: c.Claim, stamp: c.Stamp, owner: n.owners.num(c.Owner)})
		e.k = max(e.k, c.K)
		n.retag(e)
	case store.Tombstone:
		if n.cfg.Bugs.ForgetTombstones {
			return nil
		}
		t, err := DecodeRemove(v)
		if err != nil {
			return err
		}
		e := n.entry(k.GUID)
		e.set(claim{id: t.Claim, stamp: t.Stamp, owner: n.owners.num(t.Owner), tomb: true})
		n.retag(e)
	case store.Signed:
		return n.restoreSigned(k, v)
	case store.Holder:
		return n.restorePointer(k, v)
	case store.Meta:
		n.restoreMeta(k, v)
	}
	return nil
}

// copies is c: how many valid copies of e count, self included.
func (n *Node) copies(a *arc, e *entry) int {
	c := bitsOf(e.holders & n.trusted(a))
	if e.have() && e.flags&flagBad == 0 {
		c++
	}
	return c
}

func bitsOf(mask uint64) int { return bits.OnesCount64(mask) }
