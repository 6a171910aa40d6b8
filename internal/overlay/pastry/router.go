package pastry

import (
	"encoding/binary"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// This file is the face of a Node: kbr.Router, and what commands, status and
// checkers ask.

// Self is this node's handle.
func (n *Node) Self() *id.Handle { return n.self }

// Moved gives this node's handle other addresses.
func (n *Node) Moved(h *id.Handle) {
	if h.GUID != n.me || h.Epoch != n.self.Epoch {
		panic("pastry: moved to the handle of another process")
	}
	n.self = h
}

// Ready reports whether this node has joined.
func (n *Node) Ready() bool { return n.state == Ready }

// State is the state of this node's membership.
func (n *Node) State() State { return n.state }

func (n *Node) reqID() (q kbr.ReqID) {
	binary.BigEndian.PutUint64(q[:8], n.rnd.Uint64())
	binary.BigEndian.PutUint64(q[8:], n.rnd.Uint64())
	return q
}

// Route sends m towards the root of m.Key. See kbr.Router.
func (n *Node) Route(now machine.Time, m kbr.Message, hint *id.Handle, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	if m.ReqID == (kbr.ReqID{}) {
		m.ReqID = n.reqID()
	}
	if m.Deadline <= 0 {
		m.Deadline = n.cfg.Deadline
	}
	switch {
	case len(m.Body) > kbr.MaxBody:
		n.drop(&m, dropTooLarge)
	case n.state == Cold || n.state == Left:
		n.drop(&m, dropIsolated)
	default:
		var first uint32
		if hint != nil && hint.GUID != n.me {
			if r := n.intern(hint); r != 0 && n.peer(r).flags&(fForgotten|fFailed) == 0 {
				first = r
			}
		}
		n.dispatch(m, now.Add(m.Deadline), 0, first)
	}
	return n.leave(outer)
}

// LocalLookup returns up to num next hops towards k, best first.
func (n *Node) LocalLookup(k id.GUID, num int) []*id.Handle {
	m := kbr.Message{Key: k, App: kbr.AppProbe}
	first, _, ok := n.nextHop(&m, nil)
	if !ok || first == 0 || num <= 0 {
		return nil
	}
	hops := []*id.Handle{n.peer(first).h}
	if num == 1 {
		return hops
	}
	bits := id.CommonBits(n.me, k)
	var rest []uint32
	add := func(r uint32) {
		p := n.peer(r)
		if r != first && p.flags&fSuspect == 0 && id.CommonBits(p.h.GUID, k) >= bits && id.CmpDist(k, p.h.GUID, n.me) < 0 {
			rest = append(rest, r)
		}
	}
	for _, m := range n.leaf.All() {
		add(m.Ref)
	}
	n.table.each(func(r uint32) {
		if n.peer(r).flags&fLeaf == 0 {
			add(r)
		}
	})
	n.sortByDist(rest, k)
	for _, r := range rest[:min(len(rest), num-1)] {
		hops = append(hops, n.peer(r).h)
	}
	return hops
}

// NeighborSet returns up to num members of the leaf set, nearest first.
func (n *Node) NeighborSet(num int) []*id.Handle {
	var refs []uint32
	for _, m := range n.leaf.All() {
		refs = append(refs, m.Ref)
	}
	n.sortByDist(refs, n.me)
	hs := make([]*id.Handle, 0, min(num, len(refs)))
	for _, r := range refs[:min(num, len(refs))] {
		hs = append(hs, n.peer(r).h)
	}
	return hs
}

// ReplicaSet returns the rank live nodes nearest to k, root first. False: not
// all of them are known here.
func (n *Node) ReplicaSet(k id.GUID, rank int) ([]*id.Handle, bool) {
	if n.state != Ready || rank <= 0 || rank > 32 {
		return nil, false
	}
	var buf [32]ring.Member
	list, ok := n.leaf.Around(k, rank, 0, buf[:0])
	if !ok {
		return nil, false
	}
	hs := make([]*id.Handle, len(list))
	for i, m := range list {
		if m.GUID == n.me {
			hs[i] = n.self
		} else {
			hs[i] = n.peer(m.Ref).h
		}
	}
	return hs, true
}

// Range returns the arc of keys for which g is among the rank nearest nodes.
func (n *Node) Range(g id.GUID, rank int) (id.Arc, bool) {
	if n.state != Ready {
		return id.Arc{}, false
	}
	return n.leaf.Range(g, rank)
}

// Owns returns the lease under which this node owns k now.
func (n *Node) Owns(now machine.Time, k id.GUID) kbr.Ownership {
	n.now = max(n.now, now)
	return n.owns(k)
}

// Ownership returns the whole arc that this node owns now: for checkers.
func (n *Node) Ownership(now machine.Time) kbr.Ownership {
	n.now = max(n.now, now)
	return n.ownership()
}

// Lookup returns the freshest known handle of g; nil if g is neither in the
// leaf set nor in the routing table.
func (n *Node) Lookup(g id.GUID) *id.Handle {
	if r := n.peers.find(g); r != 0 && n.peer(r).flags&(fLeaf|fTable) != 0 {
		return n.peer(r).h
	}
	return nil
}

// RTT is the smoothed round-trip time to g, 0 if unknown.
func (n *Node) RTT(g id.GUID) machine.Duration {
	if r := n.peers.find(g); r != 0 {
		return n.peer(r).rtt.Smoothed()
	}
	return 0
}

// LeafSet returns both sides of the leaf set, nearest first.
func (n *Node) LeafSet() (left, right []*id.Handle) {
	for i := range n.leaf.Count(ring.Left) {
		left = append(left, n.peer(n.leaf.At(ring.Left, i).Ref).h)
	}
	for i := range n.leaf.Count(ring.Right) {
		right = append(right, n.peer(n.leaf.At(ring.Right, i).Ref).h)
	}
	return left, right
}

// Estimate is the estimated number of nodes on the ring, self included.
func (n *Node) Estimate() int64 { return n.estimate }

// Remember makes nodes known that others have met: where to look for the rest
// of the pool when all that this node has met itself is gone. Handles of nodes
// already known change nothing.
func (n *Node) Remember(hs []*id.Handle) {
	for _, h := range hs {
		if h.GUID == n.me {
			continue
		}
		if r := n.intern(h); r != 0 {
			if p := n.peer(r); p.heardSec == 0 {
				p.heardSec = max(seconds(n.wall/1000), 1)
			}
		}
	}
}

// TableEntry is a cell of the routing table.
type TableEntry struct {
	Primary, Backup *id.Handle // nil if none
	RTT             machine.Duration
	Suspect         bool
}

// Table returns the populated rows of the routing table, row 0 first: the
// columns of row p are the values of digit p, as in Figure 10.7. The cell of
// this node's own digit is empty.
func (n *Node) Table() [][columns]TableEntry {
	rows := make([][columns]TableEntry, len(n.table.rows))
	for p, row := range n.table.rows {
		if row == nil {
			continue
		}
		for d, s := range row.slots {
			if s.primary != 0 {
				q := n.peer(s.primary)
				rows[p][d] = TableEntry{Primary: q.h, RTT: q.rtt.Smoothed(), Suspect: q.flags&fSuspect != 0}
			}
			if s.backup != 0 {
				rows[p][d].Backup = n.peer(s.backup).h
			}
		}
	}
	return rows
}

// NextHop returns the next hop for m and the line of Figure 10.9 that chose
// it; nil if this node is the root. False: no next hop is known.
func (n *Node) NextHop(m *kbr.Message) (*id.Handle, kbr.Rule, bool) {
	r, rule, ok := n.nextHop(m, nil)
	if r == 0 {
		return nil, rule, ok
	}
	return n.peer(r).h, rule, ok
}

// Adopt fills the tables from outside and makes the node ready, without any
// conversation: for figures, and for rings that the simulator builds. ring
// says that others are all the nodes there are. rtt, if not nil, gives round
// trips for proximity neighbour selection. Call it in place of Start.
func (n *Node) Adopt(now machine.Time, others []*id.Handle, whole bool, rtt func(id.GUID) machine.Duration, out []machine.Effect) []machine.Effect {
	outer := n.enter(now, out)
	defer func() { n.out = outer }()
	n.state = Joining
	n.join.since = now
	n.set(tSweep, 0, machine.Minute)
	if whole {
		n.leaf.Wrap()
	}
	for _, h := range others {
		if h.GUID == n.me {
			continue
		}
		r := n.intern(h)
		if r == 0 {
			continue
		}
		p := n.peer(r)
		p.flags |= fVerified | fReady
		p.heard = now
		if rtt != nil {
			if d := rtt(h.GUID); d > 0 && !p.rtt.Known() {
				p.rtt.Sample(d)
			}
		}
		n.insertLeaf(r, 0)
		n.table.offer(r, n)
		if n.peer(r).flags&(fLeaf|fTable) == 0 {
			n.peers.remove(r)
		}
	}
	n.becomeReady()
	n.soundSince = n.now.Add(-n.longestLease()) // as if its ring had stood for long
	n.settleUp()
	return n.out
}
