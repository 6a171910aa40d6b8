package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// died remembers that r was evicted, to tell others.
func (n *Node) died(r uint32) {
	if len(n.deaths) >= maxFailed {
		n.deaths = append(n.deaths[:0], n.deaths[1:]...)
	}
	for i, d := range n.deaths {
		if d == r {
			n.deaths = append(n.deaths[:i], n.deaths[i+1:]...)
			break
		}
	}
	n.deaths = append(n.deaths, r)
}

// repairLeaves asks the farthest live leaf of each short side for its leaves;
// its answer brings the next round until both sides are full, or the ends
// meet. With a whole side dead, a look for our own place finds the other end.
func (n *Node) repairLeaves() {
	if n.leaf.Complete() || n.state != Ready && n.state != Leaving {
		return
	}
	if n.repaired != 0 && n.now.Sub(n.repaired) < 100*machine.Millisecond {
		n.exchangeSoon(n.cfg.ExchangeNear)
		return
	}
	n.repaired = n.now
	asked := false
	for _, s := range ring.Sides {
		if n.leaf.Count(s) >= n.leaf.H() {
			continue
		}
		for i := n.leaf.Count(s) - 1; i >= 0; i-- {
			r := n.leaf.At(s, i).Ref
			if n.peer(r).flags&fSuspect != 0 {
				continue
			}
			if n.bucket.Take(n.now) {
				n.ask(r)
				asked = true
			}
			break
		}
	}
	if !asked || n.leaf.Count(ring.Left) == 0 || n.leaf.Count(ring.Right) == 0 {
		n.look()
	}
	n.exchangeSoon(n.cfg.ExchangeNear)
}

// exchangeSoon brings the periodic leaf exchange forward, and starts its
// doubling anew.
func (n *Node) exchangeSoon(d machine.Duration) {
	if n.state != Ready {
		return
	}
	n.exchange = n.cfg.ExchangeFar
	at := n.now.Add(machine.Jitter(&n.rnd, d, 250_000))
	if n.timers.When(timer{tExchange, 0}) > at {
		n.timers.Set(timer{tExchange, 0}, at)
	}
}

// exchangeLeaves swaps leaf sets with a random leaf, of each side in turn, and
// doubles its period after both. It is periodic because
// repair that reacts to every change collapses under load (Rhea et al.,
// "Handling Churn in a DHT", 2004).
func (n *Node) exchangeLeaves() {
	if n.state != Ready {
		return
	}
	n.set(tExchange, 0, machine.Jitter(&n.rnd, n.exchange, 100_000))
	side := ring.Sides[n.exchanged%2]
	if n.exchanged++; side == ring.Right {
		n.exchange = min(2*n.exchange, n.cfg.ExchangeMax)
	}
	if !n.leaf.Complete() {
		n.repairLeaves()
	}
	if n.leaf.Count(side) == 0 {
		return
	}
	r := n.leaf.At(side, n.rnd.IntN(n.leaf.Count(side))).Ref
	if n.peer(r).flags&fSuspect == 0 && n.bucket.Take(n.now) {
		n.ask(r)
	}
}

// repairSlot is lazy repair of the table: a message met an empty slot, so a
// member of that row is asked for its row.
func (n *Node) repairSlot(p int) {
	if n.state != Ready {
		return
	}
	row := n.table.row(p)
	if row.asked != 0 && n.now.Sub(row.asked) < 10*machine.Second {
		return
	}
	if r := n.rowMember(p); r != 0 && n.bucket.Take(n.now) {
		row.asked = n.now
		n.send(r, &RowReq{P: uint8(p)})
		return
	}
	if r := n.rowMember(p + 1); r != 0 && n.bucket.Take(n.now) {
		row.asked = n.now
		n.send(r, &RowReq{P: uint8(p)})
	}
}

// rowMember returns a random unsuspected entry of row p, 0 if there is none.
func (n *Node) rowMember(p int) uint32 {
	if p >= len(n.table.rows) || n.table.rows[p] == nil {
		return 0
	}
	var pick uint32
	seen := 0
	for _, s := range n.table.rows[p].slots {
		if n.usable(s.primary, nil) {
			if seen++; n.rnd.IntN(seen) == 0 {
				pick = s.primary
			}
		}
	}
	return pick
}

func (n *Node) rowEntries(p int) []RowEntry {
	var list []RowEntry
	if p < len(n.table.rows) && n.table.rows[p] != nil {
		for _, s := range n.table.rows[p].slots {
			if n.usable(s.primary, nil) {
				list = append(list, RowEntry{Ref: refOf(n.peer(s.primary).h)})
			}
		}
	}
	return list
}

// onRowReq tells a row, and with it that this node is ready: a joiner, whose
// earlier boot was meant, is silent.
func (n *Node) onRowReq(r uint32, m *RowReq) {
	if n.state != Ready {
		return
	}
	n.send(r, &RowRep{P: m.P, Entries: n.rowEntries(int(m.P))})
}

// onRowRep considers a row that another node told: asked for, or announced by
// a node that has just become ready.
func (n *Node) onRowRep(r uint32, m *RowRep) {
	n.setReady(r, true)
	n.table.offer(r, n)
	var fetch []Ref
	for _, e := range m.Entries {
		q, known := n.resolve(e.Ref)
		if known {
			p := n.peer(q)
			if p.flags&(fTable|fFailed|fForgotten|fLeft) == 0 && n.table.wants(p.h.GUID) && n.bucket.Take(n.now) {
				n.pingPeer(q)
			}
			continue
		}
		var g id.GUID
		for i := range 8 {
			g[i] = byte(e.Ref.Prefix >> (56 - 8*i))
		}
		if e.Ref.Prefix != prefix(n.me) && n.table.wants(g) && len(fetch) < maxHandles {
			fetch = append(fetch, e.Ref)
		}
	}
	if len(fetch) > 0 && n.bucket.Take(n.now) {
		n.gossipNews = true
		n.send(r, &HandlesReq{Refs: fetch})
	}
}

// announceRows tells the members of each row about the row, and with it about
// this node: proximity neighbour selection by constrained gossip.
func (n *Node) announceRows() {
	for p := range n.table.rows {
		if n.table.rows[p] == nil {
			continue
		}
		m := &RowRep{P: uint8(p), Entries: n.rowEntries(p)}
		for _, s := range n.table.rows[p].slots {
			if n.usable(s.primary, nil) && n.peer(s.primary).flags&fLeaf == 0 {
				n.send(s.primary, m)
			}
		}
	}
}

// gossipRows asks one random member of each row for its row.
func (n *Node) gossipRows() {
	if n.state != Ready {
		return
	}
	if n.gossipNews {
		n.gossip = n.cfg.GossipMin
	} else {
		n.gossip = min(2*n.gossip, n.cfg.GossipMax)
	}
	n.gossipNews = false
	n.set(tGossip, 0, machine.Jitter(&n.rnd, n.gossip, 200_000))
	for p := range n.table.rows {
		if r := n.rowMember(p); r != 0 {
			n.send(r, &RowReq{P: uint8(p)})
		}
	}
}

// probeTable probes table entries that were silent for TableProbe.
func (n *Node) probeTable() {
	n.set(tTable, 0, machine.Jitter(&n.rnd, min(machine.Minute, n.cfg.TableProbe), 300_000))
	if n.state != Ready {
		return
	}
	n.table.each(func(r uint32) {
		if p := n.peer(r); n.now.Sub(p.heard) >= n.cfg.TableProbe && p.flags&fSuspect == 0 {
			n.pingPeer(r)
		}
	})
}
