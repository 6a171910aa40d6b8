package sim

import (
	"fmt"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
)

// grace is how long after a fault that fools the nodes rightly (a frozen
// process, a partition healed) the old view still counts as right.
const grace = machine.Minute

// checks judge the overlay with full knowledge.
type checks struct {
	run *overlayRun

	healedAt machine.Time // of the last partition
	before   [maxGroups]uint8

	wrongOwned, wrongBest int64
	lost, lostBest        int64
	stalled, rootDie      int64
	excused               int64 // origin died
	owned, best           int64 // lookups judged
	deliveries            [2]int64
	twice                 int64
	loops                 int64
	twoOwners             int64
	leaseLooks            int64

	upsetUntil machine.Time // faults that no published rate is about, and what follows them
	calm       struct {     // of the lookups at other times
		judged, lost      int64
		deliveries, wrong int64 // best effort
	}

	failures []string
	perKind  map[string]int

	holdings []holding // of overlaps, to use again
}

// fail records that a promise was broken: the first few in words, all counted.
func (c *checks) fail(kind, what string) {
	if c.perKind == nil {
		c.perKind = make(map[string]int)
	}
	c.perKind[kind]++
	c.run.parts.finding(kind, c.run.measuring, c.run.e.Now().Sub(c.run.from))
	if c.perKind[kind] <= 5 {
		c.failures = append(c.failures, fmt.Sprintf("%s at %v: %s", kind, fmtTime(c.run.e.Now()), what))
	}
}

// upset keeps lookups that are under way from now until a grace after t out of
// the rates that are held against published ones.
func (c *checks) upset(t machine.Time) { c.upsetUntil = max(c.upsetUntil, t.Add(grace)) }

// healing remembers who was together before a partition ends.
func (c *checks) healing() {
	c.before = c.run.e.net.components()
	c.healedAt = c.run.e.Now()
}

// together reports whether two nodes are in one component: now, and for a
// grace after a partition also before it ended.
func (c *checks) together(a, b Ref) bool {
	e := c.run.e
	ga, gb := e.Group(a), e.Group(b)
	if ga == gb {
		return true
	}
	l := e.net.components()
	if l[ga] != l[gb] {
		return false
	}
	return c.healedAt == 0 || e.Now().Sub(c.healedAt) > grace || c.before[ga] == c.before[gb]
}

// settled is false while others may rightly believe that n is dead, or n that
// others are.
func (c *checks) settled(n Ref) bool { return c.run.peers[n].unsettled <= c.run.e.Now() }

// rightRoot returns the node that must deliver key if it is not n, among those
// n is together with; World if n is right.
func (c *checks) rightRoot(n Ref, key id.GUID) Ref {
	root := c.run.ring.root(key, func(m Ref) bool {
		return m == n || c.settled(m) && c.settled(n) && c.together(n, m)
	})
	if root == n {
		return World
	}
	return root
}

// delivered judges a delivery at n.
func (c *checks) delivered(l *lookup, n Ref, now machine.Time, m *kbr.Message, own kbr.Ownership) {
	r := c.run
	l.delivered++
	if l.delivered > 1 {
		c.twice++
	} else {
		l.hops = m.Hops
		l.took = r.e.Now().Sub(l.issued)
		if n != l.origin {
			l.direct = r.e.Direct(l.origin, n)
		}
	}
	c.deliveries[min(1, l.class)]++
	right := c.rightRoot(n, l.key)
	switch {
	case !r.peers[n].ready:
		c.wrong(l, fmt.Sprintf("%s delivered while not ready", r.name(n)))
	case right != World:
		c.wrong(l, fmt.Sprintf("%s delivered, the root is %s", r.name(n), r.name(right)))
	}
	if l.class != kbr.Owned {
		return
	}
	switch {
	case !own.OK || own.Until <= now:
		c.wrongOwned++
		c.fail("lease", fmt.Sprintf("%s delivered %s of the owned class without a lease", r.name(n), l.key.Short()))
	case !own.Arc.Contains(l.key):
		c.wrongOwned++
		c.fail("lease", fmt.Sprintf("%s delivered %s outside its arc", r.name(n), l.key.Short()))
	}
	c.rivals(n, l.key)
}

func (c *checks) wrong(l *lookup, what string) {
	if l.class == kbr.Owned {
		c.wrongOwned++
		c.fail("wrong delivery (owned)", fmt.Sprintf("key %s: %s", l.key.Short(), what))
		return
	}
	c.wrongBest++
	l.wrong++
	if c.wrongBest <= 3 {
		c.run.stat.remarks = append(c.run.stat.remarks,
			fmt.Sprintf("best-effort wrong delivery at %v: key %s: %s", fmtTime(c.run.e.Now()), l.key.Short(), what))
	}
}

// rivals looks for another node that owns key now, among the ring neighbours.
func (c *checks) rivals(n Ref, key id.GUID) {
	r := c.run
	left, right := r.ring.sides(r.e.Handle(n).GUID, 3, nil)
	for _, g := range append(left, right...) {
		m := r.e.Ref(g)
		if m == n || !r.e.Alive(m) || !c.together(n, m) {
			continue
		}
		local := r.e.Local(m, r.e.Now())
		if o := r.peers[m].node.Owns(local, key); o.OK && o.Until > local && o.Arc.Contains(key) {
			c.twoOwners++
			c.fail("two owners", fmt.Sprintf("%s delivered key %s, which %s owns too", r.name(n), key.Short(), r.name(m)))
		}
	}
}

// watchLeases looks for overlapping leases every second of a measured run.
func (c *checks) watchLeases() {
	c.run.e.After(machine.Second, func() {
		if !c.run.measuring {
			return
		}
		c.overlaps()
		c.watchLeases()
	})
}

// holding is an arc that a node owns at this instant.
type holding struct {
	n   Ref
	arc id.Arc
}

// overlaps compares the arcs that all ready nodes own now: no other owns any. In
// the order of the ring they are sorted already, but for those that overlap and
// the one that goes round.
func (c *checks) overlaps() {
	r := c.run
	hs := c.holdings[:0]
	for _, at := range r.ring.at {
		local := r.e.Local(at.n, r.e.Now())
		if o := r.peers[at.n].node.Owns(local, at.g); o.OK && o.Until > local {
			hs = append(hs, holding{at.n, o.Arc})
		}
	}
	c.leaseLooks += int64(len(hs))
	c.holdings = hs
	slices.SortFunc(hs, func(a, b holding) int { return a.arc.Lo.Cmp(b.arc.Lo) })
	for i, a := range hs {
		// An arc may cover several that begin in it; in one component the next
		// one is enough, over several all are looked at.
		for k := 1; k < len(hs); k++ {
			b := hs[(i+k)%len(hs)]
			if !a.arc.Contains(b.arc.Lo) {
				break
			}
			if !c.together(a.n, b.n) {
				continue
			}
			c.twoOwners++
			c.fail("two owners", fmt.Sprintf("arcs of %s and %s overlap from %s", r.name(a.n), r.name(b.n), b.arc.Lo.Short()))
			break
		}
	}
}

// hop follows the path of a lookup.
func (c *checks) hop(l *lookup, n Ref, hops uint8, root bool) {
	if l.branch {
		return
	}
	if len(l.path) > 0 {
		if root && l.path[len(l.path)-1] == n {
			return // asked again before delivery
		}
		if hops != l.last+1 && hops != 255 {
			l.branch = true
			return
		}
	}
	if slices.Contains(l.path, n) {
		c.loop(l, fmt.Sprintf("%s twice on one path", c.run.name(n)))
		l.branch = true
		return
	}
	l.path, l.last = append(l.path, n), hops
}

func (c *checks) loop(l *lookup, what string) {
	c.loops++
	c.fail("loop", fmt.Sprintf("key %s: %s", l.key.Short(), what))
}

// judge closes the book on a lookup at its deadline.
func (c *checks) judge(l *lookup) {
	r := c.run
	if c.isCalm(l) && l.class != kbr.Owned {
		c.calm.deliveries += int64(l.delivered)
		c.calm.wrong += int64(l.wrong)
	}
	if l.delivered > 0 {
		c.count(l)
		st := &r.stat
		st.hops = append(st.hops, float64(l.hops))
		st.latency = append(st.latency, float64(l.took)/1e6)
		if l.direct > 0 {
			st.rdp = append(st.rdp, float64(l.took)/float64(l.direct))
		}
		if l.class == kbr.Owned && l.took > 5*machine.Second {
			c.stalled++
		}
		return
	}
	same := func(n Ref, inc int) bool { return r.e.Alive(n) && r.peers[n].inc == inc }
	switch {
	case !same(l.origin, l.inc):
		c.excused++ // nobody waits for it any more
		return
	case l.class == kbr.Owned && (l.noLease || !same(l.root, l.rootInc)):
		c.stalled++ // the price of leases: the range of a dead root waits
	case !same(l.root, l.rootInc):
		c.rootDie++
	default:
		c.lost++
		if l.class != kbr.Owned {
			c.lostBest++
		}
		if c.isCalm(l) {
			c.calm.lost++
		}
		if c.lost <= 3 {
			r.stat.remarks = append(r.stat.remarks, fmt.Sprintf("lost: key %s class %d from %s at %v, root %s, path %v, drop %v",
				l.key.Short(), l.class, r.name(l.origin), fmtTime(l.issued), r.name(l.root), l.path, l.dropped))
		}
	}
	c.count(l)
}

// isCalm reports, at the deadline of l, whether nothing upset the run while it
// was under way.
func (c *checks) isCalm(l *lookup) bool { return l.issued > c.upsetUntil }

func (c *checks) count(l *lookup) {
	if c.isCalm(l) {
		c.calm.judged++
	}
	if l.class == kbr.Owned {
		c.owned++
	} else {
		c.best++
	}
}

// Single lookups are lost and delivered wrongly in any overlay under loss and
// churn, and the published rates say how many. A run fails where it must be far
// above them: healthy ones are at or below, a broken one loses some in a hundred.
const (
	farAbove   = 30 // times the published rate, where the lower 95 % bound must not be
	leastCount = 3  // one or two are no rate, however short the run
)

// rates judges what single lookups are not judged by.
func (c *checks) rates() {
	if !c.run.cfg.comparable(c.run.churn) {
		return
	}
	judge := func(kind string, count, of int64, published float64) {
		if count < leastCount {
			return
		}
		if least := poissonLower(count) / float64(of); least > farAbove*published {
			c.fail(kind, fmt.Sprintf("%d of %d (95 %%: ≥ %.2g), more than %d times MSPastry's %.1e", count, of, least, farAbove, published))
		}
	}
	judge("lost lookups", c.calm.lost, c.calm.judged, publishedLost5)
	judge("wrong deliveries (best effort)", c.calm.wrong, c.calm.deliveries, publishedWrong)
}

// converged returns "" if every running node is ready and has the leaf set
// that the oracle cuts for it; else what is wrong.
func (c *checks) converged() string {
	r := c.run
	for n := Ref(1); int(n) < len(r.peers); n++ {
		p := &r.peers[n]
		if p.node == nil {
			continue
		}
		if !p.ready {
			return r.name(n) + " is not ready"
		}
		left, right := r.ring.sides(r.e.Handle(n).GUID, r.maker.leaf, nil)
		gotL, gotR := p.node.LeafSet()
		if why := sameSide(left, gotL); why != "" {
			return r.name(n) + " left side: " + why
		}
		if why := sameSide(right, gotR); why != "" {
			return r.name(n) + " right side: " + why
		}
	}
	return ""
}

// sameSide compares a side of a leaf set, nearest first, with the oracle's.
func sameSide(want []id.GUID, got []*id.Handle) string {
	for i, g := range want {
		if i >= len(got) || got[i].GUID != g {
			return g.Short() + " missing"
		}
	}
	if len(got) > len(want) {
		return got[len(want)].GUID.Short() + " should not be there"
	}
	return ""
}

// name is how reports call a node.
func (r *overlayRun) name(n Ref) string {
	if n == World {
		return "nobody"
	}
	return r.e.Handle(n).GUID.Short()
}
