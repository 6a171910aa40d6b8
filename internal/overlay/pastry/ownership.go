package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/overlay/ring"
)

// retryOwned lets messages go that waited for a lease.
func (n *Node) retryOwned() {
	for i := range n.waiting {
		if n.waiting[i].why == noLease {
			n.set(tWait, 0, 0)
			return
		}
	}
}

// owns returns the lease under which this node owns k now.
func (n *Node) owns(k id.GUID) kbr.Ownership {
	own := n.ownership()
	if own.OK && !own.Arc.Contains(k) {
		own.OK = false
	}
	return own
}

// ownership returns the arc this node owns now: up to the borders with its
// neighbours, if leases from both hold, and not past the border with anyone
// who still holds a grant of ours.
func (n *Node) ownership() kbr.Ownership {
	if n.state != Ready || n.now < n.ownedAfter || len(n.leaf.All()) == 0 && !n.sound() {
		return kbr.Ownership{}
	}
	all := n.leaf.All()
	if len(all) == 0 {
		for _, s := range ring.Sides {
			if len(n.ledger.Outstanding(n.now, s)) > 0 && !n.cfg.Bugs.DeliverWithoutLease {
				return kbr.Ownership{}
			}
		}
		if !n.leaf.Wrapped() {
			return kbr.Ownership{}
		}
		return kbr.Ownership{OK: true, Arc: id.FullArc, Until: n.now.Add(n.cfg.Lease)}
	}
	left, right := all[len(all)-1].GUID, all[0].GUID
	own := kbr.Ownership{
		OK:    true,
		Arc:   id.Arc{Lo: ring.Border(left, n.me), Hi: ring.Border(n.me, right)},
		Until: min(n.held(ring.Left), n.held(ring.Right)),
	}
	if n.cfg.Bugs.DeliverWithoutLease {
		own.Until = n.now.Add(n.cfg.Lease)
		return own
	}
	if own.Until <= n.now {
		return kbr.Ownership{}
	}
	for _, g := range n.ledger.Outstanding(n.now, ring.Left) {
		if g.Peer == left {
			continue // the border is that already
		}
		if lo := ring.Border(g.Peer, n.me); n.me.Sub(lo).Less(n.me.Sub(own.Arc.Lo)) {
			own.Arc.Lo = lo
		}
	}
	for _, g := range n.ledger.Outstanding(n.now, ring.Right) {
		if g.Peer == right {
			continue
		}
		if hi := ring.Border(n.me, g.Peer); hi.Sub(n.me).Less(own.Arc.Hi.Sub(n.me)) {
			own.Arc.Hi = hi
		}
	}
	return own
}
