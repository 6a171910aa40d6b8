package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// Repair counts eagerly and copies lazily (Carbonite). Each arc that changed
// is counted: c copies on nodes the overlay has not evicted, wherever they are.
// What is missing is made up for at once if c < W, else after the grace, in
// which a holder may return. Before a copy is sent the members of the set are
// asked (Head), so that nobody gets what he has. The nearest member leads; the
// next ones act two rounds later each, if it is still missing then.
type repair struct {
	soon    bool
	tokens  int64 // bytes
	filled  machine.Time
	queues  [MaxReplicas + 2][]id.GUID // by urgency: c < W by c, then c < k, then newcomers
	listed  map[id.GUID]bool           // in a queue, being asked for, or ready
	asking  int
	ready   []work
	active  int
	alarm   uint64
	surplus bool // a question about surplus copies is open
}

// work is a block whose copies were just confirmed.
type work struct {
	g     id.GUID
	class int
}

const (
	countBudget  = 4096 // entries counted per step
	maxQueued    = 4096 // blocks per queue
	headBatch    = 128
	maxReady     = 256
	fetchTimeout = 20 * machine.Second
	recheck      = 5 * machine.Second // a block found short is looked at again
)

func (r *repair) init() { r.listed = make(map[id.GUID]bool) }

func (r *repair) queued() int { return len(r.listed) }

// pulseRepair counts what changed and keeps copies going.
func (n *Node) pulseRepair() {
	n.countArcs(false)
	n.dropSurplus()
	n.pumpRepair()
}

// recount has every arc counted again.
func (n *Node) recount() {
	for _, a := range n.arcs {
		a.dirty = true
	}
}

// countArcs counts the arcs that are dirty or due, for a while; it goes on by
// itself.
func (n *Node) countArcs(all bool) {
	budget := countBudget
	for _, a := range n.arcs {
		if !a.dirty && !a.midway && a.due > n.now && !(all && a.stale) && a.copies == n.kEff(0) {
			continue
		}
		if budget = n.count(a, budget); budget <= 0 {
			n.later(machine.Millisecond, func() { n.countArcs(all) })
			return
		}
	}
}

// count goes through the entries of a, from where it stopped last.
func (n *Node) count(a *arc, budget int) int {
	if !a.midway {
		a.midway, a.dirty, a.stale = true, false, false
		a.copies = n.kEff(0)
		a.cursor, a.due = a.lo, machine.Never
		a.tally, a.found = tally{}, false
	}
	var drop []*entry
	var last *entry
	n.tree.walk(a.cursor, a.hi, func(e *entry) bool {
		if budget <= 0 {
			return false
		}
		budget--
		last = e
		if a.mine() {
			n.assess(a, e)
		} else if !e.have() && e.flags&(flagFirst|flagDiverted|flagSigned) == 0 {
			// A name without records, of an arc that went elsewhere. Those who
			// enter there now must still hear it.
			if until := slices.Max(a.since).Add(n.cfg.Round); until > n.now {
				a.due = min(a.due, until)
			} else {
				drop = append(drop, e)
			}
		}
		return true
	})
	for _, e := range drop {
		n.dropName(e)
	}
	if budget <= 0 && last != nil && last.guid.Less(a.hi) {
		a.cursor = last.guid.Add(one)
		return 0
	}
	a.midway = false
	a.stats = a.tally
	switch {
	case !a.found:
		a.short = 0
	case a.short == 0:
		a.short = n.now
	}
	return budget
}

// dropName forgets a name without records, and the pointers it has on the disk
// from when this node was candidate k+1.
func (n *Node) dropName(e *entry) {
	n.tree.remove(e)
	ops := n.unpoint(e)
	if len(ops) == 0 {
		return
	}
	n.exclusive(e.guid, func() {
		if n.tree.get(e.guid) != nil { // named again
			n.release(e.guid)
			return
		}
		n.store(e.guid, store.Batch{Urgent: true, Ops: ops}, func(error) { n.release(e.guid) })
	})
}

// assess counts e's copies and lists it if one is missing and due.
func (n *Node) assess(a *arc, e *entry) {
	if e.dead() {
		return
	}
	k := n.kOf(e)
	w := quorum(k)
	c := n.copies(a, e)
	if a.rank == 0 {
		// Nobody was asked yet: others may have what this node has not heard of,
		// as after each put that another one coordinated.
		switch asked := e.flags&flagAsked != 0; {
		case asked || c >= w || a.mask == 0: // asked, or nobody to ask
			a.tally.add(c, k)
		case c > 0:
			a.tally.blocks++
			a.tally.degraded++
		}
	}
	if e.signed() {
		return // brought by comparison, bytes and all
	}
	due, class := n.missing(a, e, c, k, w)
	a.found = a.found || due != machine.Never
	if c < k && e.flags&flagAsked == 0 && a.rank == 0 && a.mask != 0 {
		due = n.now // others may hold what this node has not heard of: ask
	}
	if due > n.now {
		a.due = min(a.due, due)
		return
	}
	if c < k {
		a.due = min(a.due, n.now.Add(recheck)) // who lacks it may have fetched it by then, or not
	}
	if n.repair.listed[e.guid] {
		return
	}
	if q := &n.repair.queues[class]; len(*q) < maxQueued {
		*q = append(*q, e.guid)
		n.repair.listed[e.guid] = true
	} else {
		a.due = min(a.due, n.now.Add(n.cfg.Tick))
	}
}

// missing says when a member of e's set that lacks it may get it, Never if
// nobody lacks it or nobody has it, and how urgent that is.
func (n *Node) missing(a *arc, e *entry, c, k, w int) (machine.Time, int) {
	if c == 0 {
		if e.flags&flagBad != 0 && e.holders == 0 {
			return n.now, 0 // others hold it; who, is asked
		}
		return machine.Never, 0
	}
	class := w + 1
	switch {
	case c < w:
		class = c
	case c < k:
		class = w
	}
	due := machine.Never
	for _, p := range n.setOf(a, e) {
		if n.lacking(e, p) {
			due = min(due, n.turn(a, e, p, c))
		}
	}
	return due, class
}

// turn is when p, who lacks e, may get it, with c copies there are. Below the
// write quorum that is at once; else p has been in the set for the grace by then.
// The grace is for copies that may come back: it is not waited for where one is
// missing and none is away, because p came into the set by growth or because
// every member of the pool is here. In any case those nearer to the key have
// their time first.
func (n *Node) turn(a *arc, e *entry, p *peer, c int) machine.Time {
	k := n.kOf(e)
	last := len(a.since) - 1
	i := slices.Index(a.set, p)
	if i < 0 {
		i = last // of a larger set, for an owner who wants more copies
	}
	at := a.since[i].Add(n.cfg.Grace)
	if c < quorum(k) || c < k && (a.grown[i] || n.allHere) || e.flags&flagBad != 0 && p == n.me {
		at = n.sinceShort(a)
	}
	return max(at.Add(n.patience(a, e, p)), p.fullTill, p.suspect)
}

// sinceShort is when copies on a were first found missing: now, if that is
// being found out.
func (n *Node) sinceShort(a *arc) machine.Time {
	if a.short == 0 {
		return n.now
	}
	return a.short
}

// patience is how long this node leaves p's copy to those nearer to the key:
// two rounds each. Nobody else fetches this node's own.
func (n *Node) patience(a *arc, e *entry, p *peer) machine.Duration {
	rank := slices.Index(n.setOf(a, e), n.me)
	if p == n.me || rank <= 0 {
		return 0
	}
	return machine.Duration(rank) * 2 * n.cfg.Round
}

func (n *Node) lacking(e *entry, p *peer) bool {
	if p == n.me {
		return !e.have() && !n.pointsAt(e)
	}
	return p.bit() != 0 && e.holders&p.bit() == 0
}

// pumpRepair asks about listed blocks, and copies those confirmed as far as
// slots and bytes allow.
func (n *Node) pumpRepair() {
	if n.cfg.Bugs.NoRepair {
		return
	}
	r := &n.repair
	for r.asking < 2 && len(r.ready) < maxReady {
		batch := r.take(headBatch)
		if len(batch) == 0 {
			break
		}
		n.confirm(batch)
	}
	rate := n.repairRate()
	r.tokens = min(r.tokens+int64(n.now.Sub(r.filled))*rate/int64(machine.Second), max(rate, 2*MaxBlock))
	if r.filled == 0 {
		r.tokens = max(rate, 2*MaxBlock)
	}
	r.filled = n.now
	for len(r.ready) > 0 && r.active < n.cfg.RepairSlots {
		w := r.ready[0]
		if r.tokens <= 0 && w.class >= quorum(n.kEff(0)) {
			if r.alarm == 0 {
				wait := machine.Duration(-r.tokens*int64(machine.Second)/max(rate, 1)) + machine.Millisecond
				r.alarm = n.later(wait, func() {
					r.alarm = 0
					n.pumpRepair()
				})
			}
			return
		}
		r.ready = r.ready[1:]
		n.mend(w)
	}
}

// take removes the most urgent blocks from the queues.
func (r *repair) take(count int) (batch []work) {
	for c := range r.queues {
		for len(r.queues[c]) > 0 && len(batch) < count {
			batch = append(batch, work{r.queues[c][0], c})
			r.queues[c] = r.queues[c][1:]
		}
	}
	return batch
}

// repairRate is what repair may use, in bytes per second: a quarter of the
// measured link, and only the floor while clients are busy here.
func (n *Node) repairRate() int64 {
	rate := max(n.cfg.RepairFloor, n.rate/100*int64(n.cfg.RepairShare))
	if n.pending > 4<<20 || n.serving > 8 {
		rate = n.cfg.RepairFloor
	}
	return rate
}

// confirm asks sets and holders about a batch before anything is copied.
func (n *Node) confirm(batch []work) {
	r := &n.repair
	r.asking++
	gs := make([]id.GUID, len(batch))
	for i := range batch {
		gs[i] = batch[i].g
	}
	n.heads(gs, func(op *clientHead) {
		r.asking--
		for i, w := range batch {
			e := n.tree.get(w.g)
			if e == nil {
				delete(r.listed, w.g)
				continue
			}
			e.flags |= flagAsked
			for _, hf := range op.heads[i] {
				if hf.p == n.me {
					continue
				}
				n.holder(e, n.slot(hf.p), hf.h.state == have)
				if hf.h.role == RoleDiverted {
					hf.p.full(max(hf.p.fullTill, n.now.Add(n.cfg.Round)))
				}
			}
			r.ready = append(r.ready, w)
		}
		slices.SortStableFunc(r.ready, func(a, b work) int { return a.class - b.class })
		n.pumpRepair()
	})
}

// mend brings one block to those of its set who lack it.
func (n *Node) mend(w work) {
	r := &n.repair
	delete(r.listed, w.g)
	e, a := n.tree.get(w.g), n.arcOf(w.g)
	if e == nil || a == nil || !a.mine() || e.dead() {
		return
	}
	k := n.kOf(e)
	q := quorum(k)
	c := bitsOf(e.holders & n.live)
	if e.have() && e.flags&flagBad == 0 {
		c++
	}
	if c == 0 {
		a.due = min(a.due, n.now.Add(n.cfg.Round))
		return
	}
	due, class := n.missing(a, e, c, k, q)
	if due > n.now {
		a.due = min(a.due, due)
		return
	}
	r.listed[w.g] = true
	if n.lacking(e, n.me) {
		n.fetch(e, a)
		return
	}
	open := 0
	for _, p := range n.setOf(a, e) {
		if p == n.me || !n.lacking(e, p) {
			continue
		}
		if at := n.turn(a, e, p, c); at > n.now {
			a.due = min(a.due, at)
			continue
		}
		open++
		r.active++
		r.tokens -= int64(e.size)
		if class > q {
			n.stats.Migrations++
		}
		n.push(p, w.g, RoleReplica, func(ok bool) {
			r.active--
			if open--; open == 0 {
				delete(r.listed, w.g)
			}
			if !ok {
				a.due = min(a.due, n.now.Add(2*n.cfg.Tick))
			}
			a.stale = true
			n.pumpRepair()
		})
		c++
	}
	if open == 0 {
		delete(r.listed, w.g)
	}
}

// fetch asks a holder for a block that this node should have.
func (n *Node) fetch(e *entry, a *arc) {
	r := &n.repair
	g := e.guid
	var ps []*peer
	n.each(e.holders&n.live, func(p *peer) { ps = append(ps, p) })
	if len(ps) == 0 {
		delete(r.listed, g)
		return
	}
	n.byRTT(ps)
	p := ps[0]
	r.active++
	r.tokens -= int64(max(e.size, 4096))
	n.stats.Fetched++
	n.send(p, &wantMsg{bytes: true, guids: []id.GUID{g}})
	ended := false
	var look func()
	tries := 0
	end := func() {
		ended = true
		r.active--
		delete(r.listed, g)
		n.arrival(g, nil)
		a.due = min(a.due, n.now.Add(n.cfg.Tick))
		a.stale = true
		n.pumpRepair()
	}
	look = func() {
		if ended {
			return
		}
		if n.holds(g) {
			end()
			return
		}
		if tries++; machine.Duration(tries)*machine.Second >= fetchTimeout || !p.leaf {
			n.silent(p)
			n.holder(e, p.bit(), false)
			end()
			return
		}
		n.later(machine.Second, look)
	}
	n.arrival(g, look)
	n.later(machine.Second, look)
}

// arrival sets (or with nil clears) what runs when the bytes of g are here.
func (n *Node) arrival(g id.GUID, f func()) {
	if f == nil {
		delete(n.arrivals, g)
		return
	}
	n.arrivals[g] = f
}

// touch marks the arc of a key whose copies did not reach k.
func (n *Node) touch(g id.GUID) {
	if a := n.arcOf(g); a != nil {
		a.dirty = true
	}
}

// dropSurplus gives up copies outside the set when less than a fifth of the
// disk is free, farthest first, once k members of the set have confirmed
// theirs, each in the set by its own view.
func (n *Node) dropSurplus() {
	r := &n.repair
	u := n.cfg.Usage()
	if n.cfg.Bugs.DropStandIn {
		for _, g := range n.outsideCopies(headBatch) {
			n.dropCopy(g, nil)
		}
		return
	}
	if r.surplus || u.Free*5 >= u.Limit {
		return
	}
	gs := n.outsideCopies(headBatch)
	if len(gs) == 0 {
		return
	}
	r.surplus = true
	n.heads(gs, func(op *clientHead) {
		n.later(n.cfg.Tick, func() { r.surplus = false })
		for i, g := range gs {
			e := n.tree.get(g)
			if e == nil || !e.have() {
				continue
			}
			sure := 0
			var set []*peer
			for _, hf := range op.heads[i] {
				if hf.p != n.me && hf.h.state == have && hf.h.inSet && hf.h.role != 0 {
					sure++
				}
				if hf.p != n.me {
					set = append(set, hf.p)
				}
			}
			if sure >= max(n.kOf(e), min(n.cfg.K, n.m.Count())) {
				n.dropCopy(g, set)
			}
		}
	})
}

// outsideCopies lists copies here that belong elsewhere, those farthest from
// this node's place first.
func (n *Node) outsideCopies(count int) []id.GUID {
	var gs []id.GUID
	for _, a := range n.arcs {
		if a.mine() {
			continue
		}
		n.tree.walk(a.lo, a.hi, func(e *entry) bool {
			if e.have() && !e.signed() && !slices.Contains(n.setOf(a, e), n.me) && e.role != RoleDiverted {
				gs = append(gs, e.guid)
			}
			return len(gs) < 4*count
		})
		if len(gs) >= 4*count {
			break
		}
	}
	slices.SortFunc(gs, func(a, b id.GUID) int { return id.CmpDist(n.me.h.GUID, b, a) })
	return gs[:min(count, len(gs))]
}

// dropCopy deletes bytes and claims; tombstones stay. The set is told.
func (n *Node) dropCopy(g id.GUID, set []*peer) {
	n.exclusive(g, func() {
		e := n.tree.get(g)
		if e == nil || !e.have() {
			n.release(g)
			return
		}
		b := store.Batch{Urgent: true}
		var ch change
		e.claims(func(c *claim) {
			if !c.tomb {
				ch.drops = append(ch.drops, *c)
				b.Ops = append(b.Ops, store.Op{
					Key:    store.Key{Family: store.Claim, GUID: g, Sub: subKey(n.owners.keys[c.owner], c.id)},
					Delete: true,
				})
			}
		})
		b.Ops = append(b.Ops,
			store.Op{Key: store.Key{Family: store.Block, GUID: g}, Delete: true},
			store.Op{Key: store.Key{Family: store.Head, GUID: g}, Delete: true})
		ch.lose = true
		n.apply(g, b, ch, 0, func(err error) {
			n.release(g)
			if err != nil {
				return
			}
			n.stats.Surplus++
			for _, p := range set {
				n.send(p, &pointerMsg{guid: g, drop: true, holder: n.me.h})
			}
		})
	})
}
