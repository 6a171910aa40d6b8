package pastry

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// Bounds of what a node holds for others.
const (
	maxFlights = 4096
	maxWaiting = 256 // of each cause
	maxSeen    = 65536
)

// flight is a message sent one hop and not acknowledged yet. base is the
// message as it was here, before the hop changed it: a reroute starts from it.
type flight struct {
	id      uint32
	to      uint32
	base    kbr.Message
	hop     *Hop
	sent    machine.Time
	expires machine.Time
	tries   uint8
}

type ackBatch struct {
	to  uint32
	ids []uint32
}

// cause is why a message waits.
type cause uint8

const (
	noHop    cause = iota // no next hop known, repair under way
	notReady              // we are its root, and have not joined yet
	noLease               // class owned, and we hold no lease
	numCauses
)

type waiting struct {
	m       kbr.Message
	why     cause
	until   machine.Time // give up
	expires machine.Time // deadline
	from    uint32       // previous hop, 0 if routed here
}

type seenID struct {
	id kbr.ReqID
	at machine.Time
}

// Drop reasons, counted.
const (
	dropDeadline = iota
	dropHops
	dropIsolated
	dropNoLease
	dropBusy
	dropTooLarge
	dropNoApp
	numDrops
)

var dropErr = [numDrops]error{
	kbr.ErrDeadline, kbr.ErrHops, kbr.ErrIsolated, kbr.ErrNoLease, kbr.ErrBusy, kbr.ErrTooLarge, kbr.ErrNoApp,
}

// drop ends a message without delivery and tells its application here.
func (n *Node) drop(m *kbr.Message, why int) {
	n.drops[why]++
	n.trace("pastry.drop", id.GUID{}, m.Key, int64(m.Hops), dropErr[why].Error())
	if up := n.upcalls(m.App); up != nil {
		n.out = up.Drop(n.now, m, dropErr[why], n.out)
	}
}

// onHop takes a message from the previous hop.
func (n *Node) onHop(r uint32, h *Hop) {
	if len(n.flights) >= maxFlights || len(n.waiting) >= maxWaiting*int(numCauses) {
		n.send(r, &HopAck{IDs: []uint32{h.ID}, Busy: true})
		return
	}
	n.ack(r, h.ID)
	m := h.M
	if m.Deadline <= 0 {
		n.drop(&m, dropDeadline)
		return
	}
	n.dispatch(m, n.now.Add(m.Deadline), r, 0)
}

// ack gathers an acknowledgement, to go within AckDelay.
func (n *Node) ack(r uint32, hop uint32) {
	for i := range n.acks {
		b := &n.acks[i]
		if b.to == r && len(b.ids) < maxAcks {
			b.ids = append(b.ids, hop)
			return
		}
	}
	n.peer(r).pins++
	n.acks = append(n.acks, ackBatch{to: r, ids: []uint32{hop}})
	if !n.armed(tAcks, 0) {
		n.set(tAcks, 0, n.cfg.AckDelay)
	}
}

func (n *Node) flushAcks() {
	for i := range n.acks {
		n.send(n.acks[i].to, &HopAck{IDs: n.acks[i].ids})
		n.peer(n.acks[i].to).pins--
		n.acks[i] = ackBatch{}
	}
	n.acks = n.acks[:0]
}

// dispatch moves a message one step: on to the next hop, up to the
// application, or among the waiting. hint, if not 0, is taken as next hop.
func (n *Node) dispatch(m kbr.Message, expires machine.Time, from, hint uint32) {
	if n.now >= expires {
		n.drop(&m, dropDeadline)
		return
	}
	if !n.cfg.LeafSetOnly && int64(m.Hops) >= hopCap(n.estimate) {
		n.drop(&m, dropHops)
		return
	}
	next, rule, ok := hint, kbr.RuleTable, true
	if hint == 0 {
		next, rule, ok = n.nextHop(&m, nil)
	}
	if !ok {
		n.wait(m, noHop, expires, from)
		return
	}
	if next == 0 && n.state != Ready {
		n.wait(m, notReady, expires, from)
		return
	}
	m.Rule = rule
	if m.App == appRing {
		if !n.forwardRing(&m, next) {
			return
		}
	} else if up := n.upcalls(m.App); up != nil {
		var nextHandle *id.Handle
		if next != 0 {
			nextHandle = n.peer(next).h
		}
		key := m.Key
		var goOn bool
		m.Deadline = expires.Sub(n.now)
		n.out, goOn = up.Forward(n.now, &m, nextHandle, n.out)
		if !goOn {
			return
		}
		if m.Key != key {
			if next, rule, ok = n.nextHop(&m, nil); !ok {
				n.wait(m, noHop, expires, from)
				return
			}
			m.Rule = rule
		}
	}
	if next == 0 {
		n.deliver(m, expires, from)
		return
	}
	n.launch(m, next, expires)
}

// launch sends m to next and remembers it until next acknowledges it.
func (n *Node) launch(m kbr.Message, next uint32, expires machine.Time) {
	if len(n.flights) >= maxFlights {
		n.drop(&m, dropBusy)
		return
	}
	n.flightNo++
	var f *flight
	if k := len(n.spare); k > 0 {
		f, n.spare = n.spare[k-1], n.spare[:k-1]
	} else {
		f = new(flight)
	}
	p := n.peer(next)
	*f = flight{id: n.flightNo, to: next, base: m, sent: n.now, expires: expires}
	h := &Hop{ID: f.id, M: m}
	h.M.Rule = 0
	if h.M.Hops < 255 {
		h.M.Hops++
	}
	h.M.Deadline = left(expires, n.now)
	if m.Rule == kbr.RuleLeaf || m.Flags&kbr.FlagLeaf != 0 {
		if !n.cfg.LeafSetOnly {
			h.M.Flags |= kbr.FlagLeaf
			h.M.BestDist = id.Dist(p.h.GUID, m.Key)
		}
	}
	f.hop = h
	p.pins++
	n.flights[f.id] = f
	if n.cfg.TraceHops {
		n.trace("pastry.hop", p.h.GUID, m.Key, int64(m.Hops), m.Rule.String())
	}
	n.send(next, h)
	n.set(tHop, f.id, n.rto(p))
}

// left is the time left as it travels, in whole ms: the next hop reckons with
// the same whether or not the message was encoded on its way.
func left(expires, now machine.Time) machine.Duration {
	d := expires.Sub(now)
	return d - d%machine.Millisecond
}

func (n *Node) rto(p *peer) machine.Duration {
	return p.rtt.RTO(n.cfg.RTOFloor, n.cfg.RTOCap, n.cfg.RTOFirst)
}

// land ends a flight.
func (n *Node) land(f *flight) {
	n.peer(f.to).pins--
	delete(n.flights, f.id)
	n.stop(tHop, f.id)
	*f = flight{}
	if len(n.spare) < 64 {
		n.spare = append(n.spare, f)
	}
}

func (n *Node) onHopAck(r uint32, m *HopAck) {
	for _, i := range m.IDs {
		f := n.flights[i]
		if f == nil || f.to != r {
			continue
		}
		if m.Busy {
			n.reroute(f, r)
			continue
		}
		if f.tries == 0 {
			n.peer(r).rtt.Sample(n.now.Sub(f.sent))
		}
		n.land(f)
	}
}

// hopTimeout: the next hop did not acknowledge. It is suspected; the message
// is rerouted around it with the same request id, or retransmitted if no
// other node may take it: that is how the root is never bypassed.
func (n *Node) hopTimeout(no uint32) {
	f := n.flights[no]
	if f == nil {
		return
	}
	if n.now >= f.expires {
		m := f.base
		n.land(f)
		n.drop(&m, dropDeadline)
		return
	}
	n.suspect(f.to)
	n.reroute(f, 0)
}

// reroute sends f's message on by the present tables, looking past one node.
func (n *Node) reroute(f *flight, past uint32) {
	var but *id.GUID
	if past != 0 {
		but = &n.peer(past).h.GUID
	}
	next, _, ok := n.nextHop(&f.base, but)
	if ok && next == f.to {
		f.tries++
		f.hop = &Hop{ID: f.id, M: f.hop.M}
		f.hop.M.Deadline = left(f.expires, n.now)
		n.send(f.to, f.hop)
		back := n.rto(n.peer(f.to)) << min(f.tries, 6)
		n.set(tHop, f.id, min(back, n.cfg.RTOCap, max(f.expires.Sub(n.now), 1)))
		return
	}
	m, expires := f.base, f.expires
	n.land(f)
	n.dispatch(m, expires, 0, 0)
}

// rerouteFrom sends on everything that was under way to r, which is gone.
func (n *Node) rerouteFrom(r uint32) {
	var ids []uint32
	for _, f := range n.flights {
		if f.to == r {
			ids = append(ids, f.id)
		}
	}
	slices.Sort(ids)
	for _, i := range ids {
		if f := n.flights[i]; f != nil {
			n.reroute(f, 0)
		}
	}
}

// wait keeps a message until something changes.
func (n *Node) wait(m kbr.Message, why cause, expires machine.Time, from uint32) {
	c := 0
	for i := range n.waiting {
		if n.waiting[i].why == why {
			c++
		}
	}
	if c >= maxWaiting {
		n.drop(&m, dropBusy)
		return
	}
	until := expires
	if why == noHop {
		until = min(until, n.now.Add(n.cfg.QueueWait))
		n.repairLeaves()
	}
	n.waiting = append(n.waiting, waiting{m, why, until, expires, from})
	if !n.armed(tWait, 0) {
		n.set(tWait, 0, 250*machine.Millisecond)
	}
}

// retryWaiting gives every waiting message another try. It is called when the
// leaf set, the leases or the state change, and four times a second.
func (n *Node) retryWaiting() {
	n.stop(tWait, 0)
	if len(n.waiting) == 0 {
		return
	}
	list := n.waiting
	n.waiting = nil
	for i := range list {
		w := &list[i]
		if n.now < w.until {
			why, again := n.stillWaits(w)
			if again {
				w.why = why
				n.waiting = append(n.waiting, *w)
				continue
			}
			n.dispatch(w.m, w.expires, w.from, 0)
			continue
		}
		switch w.why {
		case noHop:
			if w.until < w.expires {
				n.drop(&w.m, dropIsolated)
				continue
			}
		case noLease:
			n.drop(&w.m, dropNoLease)
			continue
		}
		n.drop(&w.m, dropDeadline)
	}
	if len(n.waiting) > 0 {
		n.set(tWait, 0, 250*machine.Millisecond)
	}
}

// stillWaits reports whether nothing has changed for w.
func (n *Node) stillWaits(w *waiting) (cause, bool) {
	next, _, ok := n.nextHop(&w.m, nil)
	switch {
	case !ok:
		return noHop, w.why == noHop
	case next != 0:
		return 0, false
	case n.state != Ready:
		return notReady, w.why == notReady
	case w.why == noLease:
		return noLease, !n.owns(w.m.Key).OK
	}
	return 0, false
}

// deliver hands m to its application: this node is the root.
func (n *Node) deliver(m kbr.Message, expires machine.Time, from uint32) {
	if _, dup := n.seen[m.ReqID]; dup {
		return
	}
	own := kbr.Ownership{}
	if m.Class == kbr.Owned {
		n.touch()
		if own = n.owns(m.Key); !own.OK {
			n.wait(m, noLease, expires, from)
			return
		}
	}
	up := n.upcalls(m.App)
	if up == nil && m.App != appRing {
		n.drop(&m, dropNoApp)
		return
	}
	if len(n.seen) >= maxSeen {
		delete(n.seen, n.seenList[0].id)
		n.seenList = n.seenList[1:]
	}
	n.seen[m.ReqID] = struct{}{}
	n.seenList = append(n.seenList, seenID{m.ReqID, n.now})
	if m.App == appRing {
		n.deliverRing(&m)
		return
	}
	n.trace("pastry.deliver", id.GUID{}, m.Key, int64(m.Class), "")
	m.Deadline = expires.Sub(n.now)
	n.out = up.Deliver(n.now, &m, own, n.out)
}

func (n *Node) forgetSeen() {
	old := n.now.Add(-n.cfg.DedupFor)
	i := 0
	for i < len(n.seenList) && n.seenList[i].at <= old {
		delete(n.seen, n.seenList[i].id)
		i++
	}
	n.seenList = slices.Delete(n.seenList, 0, i)
}
