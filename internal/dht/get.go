package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// GetCmd fetches a content block; the answer is its bytes, which match the
// GUID. They may alias a received frame and are the caller's to read. Refused
// it is not_found, removed (every claim known has ended) or unavailable.
type GetCmd struct{ GUID id.GUID }

// clientGet is one GetCmd under way.
type clientGet struct {
	n        *Node
	cmd      uint64
	got      func(block []byte) // in place of a reply, for the node's own use
	g        id.GUID
	deadline machine.Time

	queue   []*peer // to be asked, best first
	asked   map[*peer]*ask
	set     []*peer // whose word is needed for "absent"
	rest    []*peer // further candidates
	wide    bool    // rest and roster are in the queue
	follows int
	open    int
	removed uint64 // stamp of the last tombstone told of
	liars   []*peer
	rounds  int
	alarm   uint64
	ended   bool
}

// ask is one node asked by a Get.
type ask struct {
	at     machine.Time
	req    uint64
	hedged bool // the time for a second one has come
	slow   bool // silent for too long; its answer still counts
	state  presence
	others []*peer // of a pointer: those said to hold it
	done   bool
	wrong  bool
}

func (n *Node) cmdGet(cmd uint64, c GetCmd) {
	op := &clientGet{
		n: n, cmd: cmd, g: c.GUID,
		asked:    make(map[*peer]*ask, 4),
		deadline: n.now.Add(n.cfg.OpDeadline),
	}
	op.begin()
}

func (op *clientGet) begin() {
	n := op.n
	if !n.holds(op.g) {
		op.place()
		return
	}
	n.loadBlock(op.g, func(b []byte) {
		if len(b) > 0 {
			op.done(b)
			return
		}
		op.place()
	})
}

func (op *clientGet) place() {
	op.n.place(op.g, 0, true, func(set, rest []*peer) {
		n := op.n
		if len(set) == 0 {
			if n.now.Add(500*machine.Millisecond) >= op.deadline {
				op.fail(CodeUnavailable)
				return
			}
			n.later(500*machine.Millisecond, op.place)
			return
		}
		op.set, op.rest = set, rest
		op.queue = slices.Clone(set)
		n.byRTT(op.queue)
		if e := n.tree.get(op.g); e != nil && !e.have() {
			// Known here by name: its holders first.
			n.each(e.holders&n.live, func(p *peer) { op.prefer(p) })
		}
		op.next()
	})
}

// prefer puts a holder at the front of the queue.
func (op *clientGet) prefer(p *peer) {
	if op.asked[p] != nil || p.suspect > op.n.now && slices.Contains(op.queue, p) {
		return
	}
	op.queue = slices.DeleteFunc(op.queue, func(q *peer) bool { return q == p })
	op.queue = slices.Insert(op.queue, 0, p)
}

// next asks the best node not asked yet, or ends with what is known.
func (op *clientGet) next() {
	if op.ended {
		return
	}
	for len(op.queue) > 0 {
		p := op.queue[0]
		op.queue = op.queue[1:]
		if op.asked[p] == nil {
			op.send(p, false)
			return
		}
	}
	if op.open > 0 {
		if !op.wide && op.allSlow() {
			op.widen()
		}
		return
	}
	if !op.wide {
		op.widen()
		return
	}
	op.conclude()
}

func (op *clientGet) allSlow() bool {
	for _, a := range op.asked {
		if !a.done && !a.slow {
			return false
		}
	}
	return true
}

// widen adds the further candidates and the deniers: only when they too say
// "absent" is the block not there.
func (op *clientGet) widen() {
	n := op.n
	op.wide = true
	for _, g := range n.deniers(op.g) {
		if p := n.lookup(g); p != nil {
			op.queue = append(op.queue, p)
		}
	}
	needed := false
	for _, a := range op.asked {
		needed = needed || !a.done || a.state != absent
	}
	if needed {
		op.queue = append(op.queue, op.rest...)
	}
	op.next()
}

func (op *clientGet) send(p *peer, hedge bool) {
	n := op.n
	a := &ask{at: n.now}
	op.asked[p] = a
	op.open++
	n.gets++
	a.req = n.ask(p, max(op.deadline.Sub(n.now), 1), func(req uint64) machine.Message {
		return &getMsg{req: req, guid: op.g}
	}, func(p *peer, m machine.Message) { op.answer(p, a, m) })
	if !hedge {
		op.watch(p, a)
	}
}

// watch hedges after the peer's p95 and goes on to the next after silence: twice
// the p95 for one that says something meanwhile, which is busy; the time that it
// takes now for one of which nothing is heard, which may be dead.
func (op *clientGet) watch(p *peer, a *ask) {
	n := op.n
	if op.alarm != 0 {
		n.cancel(op.alarm)
	}
	first := max(p.get.p95, n.cfg.HedgeFloor)
	silence := max(n.cfg.GetTimeout, 2*p.get.p95)
	dead := max(n.cfg.GetTimeout, min(p.get.p95, p.get.rto(0, 0, machine.Hour)))
	var look func()
	look = func() {
		op.alarm = 0
		if a.done || op.ended {
			return
		}
		if !a.hedged && n.now >= a.at.Add(first) {
			a.hedged = true
			op.hedge(p)
		}
		until := min(a.at.Add(silence), max(a.at, p.heard).Add(dead))
		if until <= n.now {
			op.passOver(p, a)
			return
		}
		if !a.hedged {
			until = min(until, a.at.Add(first))
		}
		op.alarm = n.later(until.Sub(n.now), look)
	}
	look()
}

// hedge asks the next beside p, as long as that is one in twenty.
func (op *clientGet) hedge(p *peer) {
	n := op.n
	if n.stats.Hedges*20 > n.gets || len(op.queue) == 0 || p == n.me {
		return
	}
	q := op.queue[0]
	op.queue = op.queue[1:]
	if op.asked[q] == nil {
		n.stats.Hedges++
		op.send(q, true)
	}
}

// passOver goes on to the next after p was silent for too long.
func (op *clientGet) passOver(p *peer, a *ask) {
	n := op.n
	n.silent(p)
	if p != n.me { // until it answers, what it cost to find out is not paid again soon
		p.suspect = max(p.suspect, n.now.Add(min(4*n.now.Sub(a.at), 10*machine.Second)))
	}
	for _, b := range op.asked {
		if b.at <= a.at {
			b.slow = true
		}
	}
	op.next()
	if op.alarm == 0 && op.open > 0 && !op.ended {
		op.await()
	}
}

// await waits for those that were asked, when nobody is left to ask. What was
// asked may be lost with its link, or the answer, so it is asked again now and then.
func (op *clientGet) await() {
	n := op.n
	wait := op.deadline.Sub(n.now)
	if op.removed > 0 { // there is hardly anything to wait for
		wait = min(wait, n.cfg.ClientTimeout)
	}
	again := n.cfg.OpDeadline / 4
	op.alarm = n.later(max(min(wait, again), 1), func() {
		op.alarm = 0
		if wait <= again {
			op.conclude()
			return
		}
		for _, p := range op.silent() {
			n.send(p, &getMsg{req: op.asked[p].req, guid: op.g})
		}
		op.await()
	})
}

// silent are those that have not answered, in the order of their GUIDs.
func (op *clientGet) silent() (ps []*peer) {
	for p, a := range op.asked {
		if !a.done {
			ps = append(ps, p)
		}
	}
	slices.SortFunc(ps, func(a, b *peer) int { return a.h.GUID.Cmp(b.h.GUID) })
	return ps
}

func (op *clientGet) answer(p *peer, a *ask, m machine.Message) {
	n := op.n
	a.done = true
	op.open--
	if op.ended {
		return
	}
	switch m := m.(type) {
	case nil:
		a.state = unsynced
		n.silent(p)
	case *refuseMsg:
		a.state = unsynced
		if m.code == codeRemoved {
			a.state = absent
			op.removed = max(op.removed, m.stamp)
		}
		if m.code == codeBusy {
			delete(op.asked, p)
			n.later(machine.Duration(max(m.after, 20))*machine.Millisecond, func() {
				op.queue = append(op.queue, p)
				op.next()
			})
			if op.open == 0 && len(op.queue) == 0 {
				return
			}
		}
	case *blockMsg:
		if m.guid != op.g {
			a.state = unsynced
			n.strike(p, "another block than asked for")
			break
		}
		a.state = m.state
		switch m.state {
		case have:
			if p != n.me && !m.sum.ok(op.g, m.block) {
				a.state, a.wrong = unsynced, true
				n.stats.WrongBytes++
				n.strike(p, "bytes that do not match their name")
				op.liars = append(op.liars, p)
				break
			}
			p.get.sample(n.now.Sub(a.at))
			op.done(m.block)
			return
		case pointer:
			for _, h := range m.others {
				q := n.peer(h)
				a.others = append(a.others, q)
				op.prefer(q)
			}
		case outside:
			op.followSet(p, m.others)
		}
	default:
		a.state = unsynced
		n.strike(p, "wrong answer to Get")
	}
	op.next()
}

// followSet takes over the view of a node that is not in the set by its own.
func (op *clientGet) followSet(p *peer, hs []*id.Handle) {
	if !slices.Contains(op.set, p) {
		return
	}
	if op.follows++; op.follows > 3 {
		return
	}
	op.set = nil
	for _, h := range hs {
		q := op.n.peer(h)
		op.set = append(op.set, q)
		if op.asked[q] == nil && !slices.Contains(op.queue, q) {
			op.queue = append(op.queue, q)
		}
	}
}

func (op *clientGet) done(block []byte) {
	n := op.n
	op.ended = true
	op.close()
	for _, p := range op.liars {
		n.sendGood(p, op.g, block)
	}
	if op.got != nil {
		op.got(block)
		return
	}
	n.stats.Gets++
	n.reply(op.cmd, block)
}

func (op *clientGet) close() {
	if op.alarm != 0 {
		op.n.cancel(op.alarm)
	}
	for _, a := range op.asked {
		if !a.done {
			op.n.forget(a.req)
		}
	}
}

// conclude applies the rule of not_found: the whole set and the deniers said
// "absent". Anything less is unavailable. If one of them knows that the owners
// have removed the block, that is the answer.
func (op *clientGet) conclude() {
	n := op.n
	if op.ended {
		return
	}
	said := func(p *peer, inSet bool) bool {
		a := op.asked[p]
		return a != nil && a.done && (a.state == absent || !inSet && a.state == outside || op.outdated(a))
	}
	all := len(op.set) > 0
	for _, p := range op.set {
		all = all && said(p, true)
	}
	for _, g := range n.deniers(op.g) {
		p := n.lookup(g)
		all = all && p != nil && said(p, slices.Contains(op.set, p))
	}
	switch {
	case all && op.removed > 0:
		op.fail(CodeRemoved)
		return
	case all:
		op.fail(CodeNotFound)
		return
	}
	// A node that does not know yet may know in a moment.
	if wait := 500 * machine.Millisecond; op.rounds < 6 && n.now.Add(wait) < op.deadline && op.open == 0 {
		op.rounds++
		n.later(wait<<min(op.rounds-1, 2), func() {
			if op.ended {
				return
			}
			op.asked = make(map[*peer]*ask, 4)
			op.wide, op.follows = false, 0
			op.place()
		})
		return
	}
	op.fail(CodeUnavailable)
}

// outdated: a pointer to nodes none of which has the block, where its removal is
// known. Whoever gave it has not heard of them that they lost it so.
func (op *clientGet) outdated(a *ask) bool {
	return op.removed > 0 && a.state == pointer && !slices.ContainsFunc(a.others, func(q *peer) bool {
		b := op.asked[q]
		return b == nil || !b.done || b.state != absent && b.state != outside
	})
}

func (op *clientGet) fail(code string) {
	n := op.n
	op.ended = true
	r := &Refusal{Code: code}
	if code == CodeRemoved {
		r.Stamp = op.removed
	}
	if code == CodeUnavailable {
		r.Removed = op.removed > 0
		var ps []*peer
		for p, a := range op.asked {
			if !a.done || a.state == unsynced {
				ps = append(ps, p)
			}
		}
		r.Nodes = guids(ps)
		for _, g := range n.deniers(op.g) {
			if n.lookup(g) == nil {
				r.Nodes = append(r.Nodes, g)
			}
		}
		r.Detail = "no copy within reach"
	}
	op.close()
	if op.got != nil {
		op.got(nil)
		return
	}
	n.refuse(op.cmd, r)
}
