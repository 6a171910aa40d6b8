package dht

import (
	"cmp"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire"
)

const divertTries = 3

// divert finds a node outside the set, the one with most room first, to hold a
// copy in place of this one, which is too full (PAST, replica diversion). This
// node keeps the claims and a pointer; candidate k+1 gets a second pointer.
func (n *Node) divert(from *peer, m *copyMsg) {
	set, rest, ok := n.view(m.guid, 0)
	var hosts []*peer
	if ok && !n.draining() {
		for _, p := range n.circle.nodes {
			if p != n.me && p != from && !slices.Contains(set, p) && p.fullTill <= n.now && (p.free == 0 || uint64(len(m.block))*20 <= p.free) {
				hosts = append(hosts, p)
			}
		}
	}
	slices.SortStableFunc(hosts, func(a, b *peer) int { return cmp.Compare(b.free, a.free) })
	hosts = hosts[:min(len(hosts), divertTries)]
	size := int64(len(m.block))
	n.pending += size
	var next func()
	next = func() {
		if len(hosts) == 0 || len(m.certs) == 0 {
			n.pending -= size
			n.compareSoon(from)
			n.no(from, m.req, &refuseMsg{code: codeFull, detail: "neither here nor with a neighbour", set: n.fullest(set)})
			return
		}
		p := hosts[0]
		hosts = hosts[1:]
		n.ask(p, n.cfg.ClientTimeout, func(req uint64) machine.Message {
			return &copyMsg{req: req, role: RoleDiverted, guid: m.guid, certs: m.certs, block: m.block}
		}, func(p *peer, a machine.Message) {
			ack, ok := a.(*copyAckMsg)
			if !ok || ack.want || len(ack.receipts) == 0 {
				if r, no := a.(*refuseMsg); no && r.code == codeFull {
					p.full(n.now.Add(machine.Minute))
				}
				next()
				return
			}
			n.says(p, ack.free)
			n.pointTo(m, p, func(ok bool) {
				n.pending -= size
				if !ok {
					n.no(from, m.req, &refuseMsg{code: codeFull})
					return
				}
				n.stats.Diverted++
				n.trace("dht.diverted", p.h.GUID, m.guid, size, "")
				if len(rest) > 0 && rest[0] != p {
					n.send(rest[0], &pointerMsg{guid: m.guid, holder: p.h})
				} else if len(rest) > 1 {
					n.send(rest[1], &pointerMsg{guid: m.guid, holder: p.h})
				}
				n.send(from, &copyAckMsg{
					req: m.req, guid: m.guid, receipts: ack.receipts,
					free: uint64(max(0, n.cfg.Usage().Free)),
				})
			})
		})
	}
	next()
}

func (n *Node) draining() bool { return n.drain != nil }

// fullest lists the set by free space, for the message that says full.
func (n *Node) fullest(set []*peer) []*id.Handle {
	ps := slices.Clone(set)
	slices.SortStableFunc(ps, func(a, b *peer) int { return cmp.Compare(a.free, b.free) })
	return handles(ps)
}

// pointTo makes claims and pointer durable.
func (n *Node) pointTo(m *copyMsg, p *peer, f func(ok bool)) {
	if !n.exclusive(m.guid, func() {
		if n.holds(m.guid) {
			n.release(m.guid)
			f(true)
			return
		}
		b := store.Batch{Urgent: true, Ops: []store.Op{pointerOp(m.guid, p.h)}}
		for i := range m.certs {
			c := &m.certs[i]
			b.Ops = append(b.Ops, store.Op{
				Key:   store.Key{Family: store.Claim, GUID: m.guid, Sub: subKey(c.Owner, c.Claim)},
				Value: Encode(c),
			})
		}
		n.store(m.guid, b, func(err error) {
			if err == nil {
				e := n.entry(m.guid)
				for i := range m.certs {
					c := &m.certs[i]
					e.set(claim{id: c.Claim, stamp: c.Stamp, owner: n.owners.num(c.Owner)})
					e.k = max(e.k, c.K)
				}
				e.size = uint32(len(m.block))
				e.flags |= flagDiverted
				n.point(e, p)
				n.retag(e)
			}
			n.release(m.guid)
			f(err == nil)
		})
	}) {
		f(false)
	}
}

func (n *Node) point(e *entry, p *peer) {
	bit := n.slot(p)
	e.holders |= bit
	e.extra().pointed |= bit
}

// pointsAt reports whether e's bytes are with a node that is here now and to
// which this one diverted them, unless it has said since that it has lost them, or
// has come into the set: there its copy counts as its own.
func (n *Node) pointsAt(e *entry) bool {
	if e.flags&flagDiverted == 0 {
		return false
	}
	at := e.x.pointed & e.holders & n.live
	if a := n.arcOf(e.guid); at != 0 && a != nil {
		at &^= a.mask
	}
	return at != 0
}

func pointerOp(g id.GUID, h *id.Handle) store.Op {
	var w wire.Writer
	w.Handle(h)
	return store.Op{Key: store.Key{Family: store.Holder, GUID: g, Sub: string(h.GUID[:])}, Value: w.B}
}

// unpoint deletes the pointers of an entry whose last claim goes.
func (n *Node) unpoint(e *entry) (ops []store.Op) {
	if e.x == nil || e.x.pointed == 0 {
		return nil
	}
	n.each(e.x.pointed, func(p *peer) {
		ops = append(ops, store.Op{
			Key:    store.Key{Family: store.Holder, GUID: e.guid, Sub: string(p.h.GUID[:])},
			Delete: true,
		})
	})
	return ops
}

// onPointer learns where a diverted copy is, or that a surplus one is gone.
func (n *Node) onPointer(p *peer, m *pointerMsg) {
	if m.drop {
		if e := n.tree.get(m.guid); e != nil {
			n.holder(e, p.bit(), false)
		}
		return
	}
	set, rest, ok := n.view(m.guid, 0)
	if !ok || !slices.Contains(set, p) || !slices.Contains(set, n.me) && !slices.Contains(rest, n.me) || m.holder.GUID == n.me.h.GUID {
		return
	}
	q := n.peer(m.holder)
	if e := n.tree.get(m.guid); e != nil && e.x != nil && e.x.pointed&q.bit() != 0 {
		return
	}
	n.exclusive(m.guid, func() {
		n.store(m.guid, store.Batch{Urgent: true, Ops: []store.Op{pointerOp(m.guid, q.h)}}, func(err error) {
			if err == nil {
				e := n.entry(m.guid)
				n.point(e, q)
			}
			n.release(m.guid)
		})
	})
}

// restorePointer: the holder's bit counts once the overlay knows it again.
func (n *Node) restorePointer(k store.Key, v []byte) error {
	r := wire.NewReader(v)
	h := r.Handle()
	if err := r.Close(); err != nil {
		return err
	}
	n.point(n.entry(k.GUID), n.peer(h))
	return nil
}

// settlePointers finishes Restore: claims without bytes but with a pointer are
// those of a diverted copy.
func (n *Node) settlePointers() {
	n.tree.walk(id.GUID{}, maxGUID, func(e *entry) bool {
		if live, _ := e.count(); e.x != nil && e.x.pointed != 0 && !e.have() && live > 0 {
			e.flags |= flagDiverted
		}
		return true
	})
}
