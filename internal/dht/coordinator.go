package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// spread is what a coordinator does with a put, a remove or a signed put: it
// brings one record to the set until W members have it on disk, answers, and
// goes on to k in the background. A member that is silent for its RTO before W
// is reached gets a stand-in.
type spread struct {
	n        *Node
	key      id.GUID
	k, need  int
	standIns bool
	holds    bool // those who acknowledge hold the bytes then
	client   *peer
	req      uint64 // of the client
	// anchor are members of the roster of whom one must be among those that
	// acknowledge: the k nearest to the key, whose word "not found" needs. So
	// an acknowledgement on one side of a split and a "not found" on the other
	// exclude each other. Empty: none needed.
	anchor   []id.GUID
	anchored bool
	deadline machine.Time

	// send puts the question to t for the first time (fresh) or again. Its
	// answer reaches acked, refused or gone.
	send func(t *target, fresh bool)
	// atW answers the client; failed does if W stays out of reach.
	atW    func()
	failed func(r *Refusal)

	targets  []*target
	receipts []Receipt
	acks     int
	answered bool
	ended    bool
	alarm    uint64
}

// target is one node asked.
type target struct {
	p     *peer
	role  Role
	req   uint64
	tries int
	first machine.Time // when asked first
	at    machine.Time // when asked last
	rto   machine.Duration
	done  bool
	gone  bool // silent or evicted: a stand-in has been asked
	no    *Refusal
	size  int // bytes sent last
}

func (s *spread) start() {
	s.anchored = len(s.anchor) == 0
	s.refresh()
	s.watch()
	if s.client != nil && s.client != s.n.me {
		s.n.later(s.n.cfg.ClientTimeout/3, s.working)
	}
}

// working tells the client now and then that it is not forgotten.
func (s *spread) working() {
	if s.answered || s.ended {
		return
	}
	s.n.send(s.client, &workingMsg{req: s.req})
	s.n.later(s.n.cfg.ClientTimeout/3, s.working)
}

// answerMargin is how long before the client's deadline a coordinator gives
// up, so that its word arrives in time.
const answerMargin = 500 * machine.Millisecond

// until is a coordinator's deadline for a client that waits left ms more.
func (n *Node) until(left uint32) machine.Time {
	d := min(machine.Duration(left)*machine.Millisecond, n.cfg.OpDeadline)
	return n.now.Add(max(d-answerMargin, d/2))
}

// refresh takes the set as it is now, and asks members not asked yet.
func (s *spread) refresh() {
	set, _, ok := s.n.view(s.key, s.k)
	if !ok {
		return
	}
	for _, p := range set {
		if t := s.target(p); t == nil {
			s.ask(p, RoleReplica)
		} else if t.gone && !t.done && p.leaf {
			t.gone = false
		}
	}
}

func (s *spread) target(p *peer) *target {
	for _, t := range s.targets {
		if t.p == p {
			return t
		}
	}
	return nil
}

func (s *spread) ask(p *peer, role Role) {
	t := &target{p: p, role: role, at: s.n.now}
	s.targets = append(s.targets, t)
	s.send(t, true)
}

// sent notes that t has been asked, with so many bytes.
func (s *spread) sent(t *target, size int) {
	if t.tries == 0 {
		t.first = s.n.now
	}
	t.at = s.n.now
	t.size = max(t.size, size)
	t.tries++
	t.rto = t.p.copies(size).rto(machine.Second, s.n.cfg.AckFloor, 30*machine.Second) + transferTime(size, s.n.rate)
	for range min(t.tries-1, 5) {
		t.rto *= 2
	}
}

// watch looks after silent targets until all have answered.
func (s *spread) watch() {
	n := s.n
	next := s.deadline
	for _, t := range s.targets {
		if !t.done && t.no == nil && t.tries > 0 {
			next = min(next, t.at.Add(t.rto))
		}
	}
	if s.alarm != 0 {
		n.cancel(s.alarm)
	}
	s.alarm = n.later(max(next.Sub(n.now), machine.Millisecond), s.look)
}

func (s *spread) look() {
	n := s.n
	s.alarm = 0
	if s.ended {
		return
	}
	if n.now >= s.deadline {
		s.end()
		return
	}
	s.refresh()
	for _, t := range s.targets {
		if t.done || t.no != nil || t.tries == 0 || t.at.Add(t.rto) > n.now {
			continue
		}
		if !t.gone {
			// A stand-in first; the question again after as long a wait.
			t.gone = true
			n.silent(t.p)
			s.standIn()
			t.at = n.now
			continue
		}
		s.send(t, false)
	}
	if !s.ended {
		s.watch()
	}
}

// standIn asks the next candidate in place of a silent member.
func (s *spread) standIn() {
	if s.answered || !s.standIns || len(s.receipts) >= maxReceipts {
		return
	}
	_, rest, _ := s.n.view(s.key, s.k)
	for _, p := range rest {
		if s.target(p) == nil && p.suspect <= s.n.now {
			s.n.stats.StandIns++
			s.n.trace("dht.standin", p.h.GUID, s.key, 0, "")
			s.ask(p, RoleStandIn)
			return
		}
	}
}

// acked counts t's receipt.
func (s *spread) acked(t *target, rs []Receipt) {
	if t.done || s.ended {
		return
	}
	t.done = true
	s.acks++
	s.anchored = s.anchored || slices.Contains(s.anchor, t.p.h.GUID)
	if !s.answered {
		s.receipts = append(s.receipts, rs...)
	}
	if !s.answered && s.acks >= s.need && s.anchored {
		s.answered = true
		s.atW()
	}
	s.check()
}

// refused: t will not have it, and says why.
func (s *spread) refused(t *target, r *Refusal) {
	if t.done || s.ended {
		return
	}
	if r.Code == CodeBusy {
		t.at, t.rto = s.n.now, machine.Duration(max(r.AfterMS, 20))*machine.Millisecond
		t.gone = true // asked again, without a stand-in
		s.watch()
		return
	}
	t.no = r
	if !s.answered && (r.Code == CodeRemoved || s.hopeless()) {
		s.failed(r)
		s.finish()
		return
	}
	s.check()
}

// hopeless: so many refused that W cannot be reached.
func (s *spread) hopeless() bool {
	can := 0
	for _, t := range s.targets {
		if t.no == nil {
			can++
		}
	}
	no := len(s.targets) - can
	return no > 0 && can < s.need
}

// lost: t was evicted before it answered.
func (s *spread) lost(t *target) {
	if t.done || s.ended || t.no != nil {
		return
	}
	if !t.gone {
		t.gone = true
		s.standIn()
	}
	t.rto = machine.Second
	t.at = s.n.now
}

// check ends the work when every target has answered and W is reached.
func (s *spread) check() {
	if !s.answered {
		return
	}
	for _, t := range s.targets {
		if !t.done && t.no == nil {
			return
		}
	}
	s.finish()
}

// end is the deadline.
func (s *spread) end() {
	if !s.answered {
		var silent []id.GUID
		for _, t := range s.targets {
			if !t.done {
				silent = append(silent, t.p.h.GUID)
			}
		}
		for _, g := range s.n.m.Nearest(s.key, s.n.kEff(s.k)) {
			if !slices.ContainsFunc(s.targets, func(t *target) bool { return t.p.h.GUID == g }) {
				silent = append(silent, g)
			}
		}
		r := &Refusal{Code: CodeNoQuorum, Nodes: silent, Receipts: s.receipts}
		if s.acks >= s.need {
			r.Detail = "none of the members nearest to the key is within reach"
		}
		s.failed(r)
	}
	s.finish()
}

func (s *spread) finish() {
	if s.ended {
		return
	}
	s.ended = true
	n := s.n
	if s.alarm != 0 {
		n.cancel(s.alarm)
	}
	whole := true
	for _, t := range s.targets {
		n.forget(t.req)
		whole = whole && t.done
		if t.done && s.holds {
			n.nowHolds(s.key, t.p)
		}
	}
	if !whole {
		n.touch(s.key)
	}
}

// settled calls f once the peer's roster and ours agree; if they do not within
// a second, it says busy.
func (n *Node) settled(p *peer, req uint64, digest [32]byte, f func()) {
	if digest == n.m.Digest() || n.cfg.RosterDiffers == nil || p == n.me {
		f()
		return
	}
	tries := 0
	var look func()
	look = func() {
		switch {
		case digest == n.m.Digest():
			f()
		case tries >= 20:
			n.no(p, req, &refuseMsg{code: codeBusy, after: 300, detail: "rosters differ"})
		default:
			if tries%10 == 0 {
				n.stats.RosterWaits++
				n.out = n.cfg.RosterDiffers(n.now, p.h, n.out)
			}
			tries++
			n.later(50*machine.Millisecond, look)
		}
	}
	look()
}

// no refuses a request.
func (n *Node) no(p *peer, req uint64, m *refuseMsg) {
	m.req = req
	m.detail = m.detail[:min(len(m.detail), maxDetail)]
	n.stats.refused(m.code.String())
	n.send(p, m)
}

// pass turns a Refusal into a Refuse for the client.
func pass(r *Refusal, find func(id.GUID) *peer) *refuseMsg {
	m := &refuseMsg{code: codeNoQuorum, after: uint32(r.AfterMS), stamp: r.Stamp, detail: r.Detail}
	for c := codeFull; c < codeEnd; c++ {
		if c.String() == r.Code {
			m.code = c
		}
	}
	for _, g := range r.Nodes {
		if p := find(g); p != nil && len(m.set) < maxSet {
			m.set = append(m.set, p.h)
		}
	}
	return m
}

// coordinates reports whether this node may coordinate for key, and refuses if
// not.
func (n *Node) coordinates(p *peer, req uint64, key id.GUID, k int) bool {
	set, _, ok := n.view(key, k)
	switch {
	case !ok:
		n.no(p, req, &refuseMsg{code: codeUnsynced, detail: "not in the ring yet, or far from the key"})
	case !slices.Contains(set, n.me):
		n.no(p, req, &refuseMsg{code: codeNotReplica, set: handles(set)})
	default:
		return true
	}
	return false
}

// onPut coordinates a put.
func (n *Node) onPut(p *peer, m *putMsg) {
	cert := &m.cert
	if !m.sum.ok(cert.GUID, m.block) || len(m.block) > 0 && int(cert.Size) != len(m.block) {
		n.strike(p, "put of bytes that do not match their name")
		n.no(p, m.req, &refuseMsg{code: codeBadName})
		return
	}
	if !n.certOK(p, m.req, cert) {
		return
	}
	if len(n.calls) >= n.cfg.MaxOps || n.pending+int64(len(m.block)) > n.cfg.MaxBytes {
		n.no(p, m.req, &refuseMsg{code: codeBusy, after: 50})
		return
	}
	size := int64(len(m.block))
	n.pending += size
	n.settled(p, m.req, m.roster, func() {
		if !n.coordinates(p, m.req, cert.GUID, int(cert.K)) {
			n.pending -= size
			return
		}
		n.coordinatePut(p, m)
	})
}

// certOK checks a certificate that a client sent.
func (n *Node) certOK(p *peer, req uint64, c *StoreCert) bool {
	switch wall := n.unixMS(); {
	case c.Pool != n.cfg.Pool:
		n.strike(p, "certificate of another pool")
		n.no(p, req, &refuseMsg{code: codeNotMember, detail: "certificate of another pool"})
	case !n.m.OwnerOK(c.Owner):
		n.no(p, req, &refuseMsg{code: codeNotMember, detail: "owner is not of this pool"})
	case c.Stamp > wall+maxFuture:
		n.no(p, req, &refuseMsg{code: codeClock, stamp: wall, detail: "stamp more than 5 minutes ahead"})
	case p != n.me && !n.knows(c) && !c.Verify(n.cfg.Verify):
		n.strike(p, "certificate with a bad signature")
		n.no(p, req, &refuseMsg{code: codeBadSig})
	default:
		return true
	}
	return false
}

// knows reports whether c, or a later one of its claim, was verified before.
// The signature of an equal stamp may still differ: then c is not stored.
func (n *Node) knows(c *StoreCert) bool {
	e := n.tree.get(c.GUID)
	if e == nil {
		return false
	}
	o, ok := n.owners.known(c.Owner)
	if !ok {
		return false
	}
	k := e.find(o, c.Claim, false)
	return k != nil && k.stamp >= c.Stamp
}

func (n *Node) coordinatePut(p *peer, m *putMsg) {
	cert, block, size := &m.cert, m.block, int64(len(m.block))
	e := n.tree.get(cert.GUID)
	known := e != nil && e.have()
	k := n.kEff(int(cert.K))
	need := quorum(k)
	if m.w > 0 {
		need = int(m.w)
	}
	if n.cfg.Bugs.AckAtWMinusOne {
		need = max(1, need-1)
	}
	if n.cfg.Bugs.HaveIsAck && known {
		need = 1
	}
	s := &spread{
		n: n, key: cert.GUID, k: int(cert.K), need: need, standIns: true,
		client: p, req: m.req, deadline: n.until(m.left),
	}
	if m.w == 0 {
		s.anchor = n.m.Nearest(cert.GUID, n.cfg.K)
	}
	free := func() { // the bytes are on disk, or given up
		block = nil
		n.pending -= size
		size = 0
	}
	s.atW = func() {
		n.send(p, &putAckMsg{req: m.req, known: known, receipts: s.receipts})
		free()
	}
	s.failed = func(r *Refusal) {
		free()
		n.no(p, m.req, pass(r, n.lookup))
	}
	s.send = func(t *target, fresh bool) {
		c := &copyMsg{role: t.role, guid: cert.GUID, certs: []StoreCert{*cert}}
		if fresh || !s.answered {
			c.block = block
		}
		n.sendCopy(s, t, c, func() {
			// t wants the bytes.
			switch {
			case len(block) > 0:
				c := *c
				c.block = block
				n.sendCopy(s, t, &c, nil)
			case n.holds(cert.GUID):
				n.loadBlock(cert.GUID, func(b []byte) {
					if len(b) == 0 || s.ended {
						return
					}
					c := *c
					c.block = b
					n.sendCopy(s, t, &c, nil)
				})
			case !s.answered && t.p == n.me:
				n.send(p, &putAckMsg{req: m.req, want: true})
				s.answered = true
				s.finish()
			}
		})
	}
	s.start()
}

func (n *Node) holds(g id.GUID) bool {
	e := n.tree.get(g)
	return e != nil && e.have()
}

// loadBlock reads a content block from this disk; nil if it is not there or bad,
// or if g names a signed block, which is none the worse for that.
func (n *Node) loadBlock(g id.GUID, f func(b []byte)) {
	if e := n.tree.get(g); e != nil && e.signed() {
		f(nil)
		return
	}
	n.load([]store.Key{{Family: store.Block, GUID: g}}, func(vs [][]byte, err error) {
		if err != nil || len(vs) == 0 || len(vs[0]) == 0 {
			n.badBlock(g, err)
			f(nil)
			return
		}
		f(vs[0])
	})
}

// sendCopy asks t to store; want is called when t lacks the bytes.
func (n *Node) sendCopy(s *spread, t *target, c *copyMsg, want func()) {
	if t.p == n.me {
		c.sum = matches
	}
	s.sent(t, len(c.block))
	if t.req != 0 {
		if _, open := n.calls[t.req]; open {
			c.req = t.req
			n.send(t.p, c)
			return
		}
	}
	t.req = n.ask(t.p, max(s.deadline.Sub(n.now), 1), func(req uint64) machine.Message {
		c.req = req
		return c
	}, func(p *peer, m machine.Message) {
		switch m := m.(type) {
		case nil:
			s.lost(t)
		case *copyAckMsg:
			p.free = m.free
			if m.want {
				if want != nil && !t.done {
					want()
				}
				return
			}
			n.measure(p, t.size, t.first)
			n.holdsBy(c.guid, p, m.receipts)
			s.acked(t, m.receipts)
		case *refuseMsg:
			if m.code == codeFull {
				p.fullTill = n.now.Add(machine.Minute)
			}
			s.refused(t, refusal(m))
		default:
			n.strike(p, "wrong answer to Copy")
			s.lost(t)
		}
	})
}

// measure feeds the estimates of a peer's answers and of the link. start is
// when it was asked first: an answer after a repetition counts in full, so
// that the estimate follows a peer that got slow.
func (n *Node) measure(p *peer, size int, start machine.Time) {
	d := max(n.now.Sub(start), 1)
	p.copies(size).sample(d)
	if size >= largeCopy && p != n.me {
		n.rate = max(n.rate-n.rate/64, int64(size)*int64(machine.Second)/int64(d))
	}
}

// holdsBy notes who holds the bytes that p acknowledged: p, or the node to
// which it diverted them.
func (n *Node) holdsBy(g id.GUID, p *peer, rs []Receipt) {
	if len(rs) > 0 && rs[0].Role == RoleDiverted && rs[0].Node != p.h.GUID {
		p.fullTill = max(p.fullTill, n.now.Add(n.cfg.Round))
		if q := n.lookup(rs[0].Node); q != nil {
			n.nowHolds(g, q)
		}
		return
	}
	n.nowHolds(g, p)
}

// nowHolds notes that p has the bytes of g.
func (n *Node) nowHolds(g id.GUID, p *peer) {
	if p == n.me {
		return
	}
	if e := n.tree.get(g); e != nil {
		n.holder(e, n.slot(p), true)
	}
}

// holder notes whether the peer of bit has e's bytes.
func (n *Node) holder(e *entry, bit uint64, has bool) {
	was := e.holders
	if has {
		e.holders |= bit
	} else {
		e.holders &^= bit
	}
	if e.holders != was {
		if a := n.arcOf(e.guid); a != nil {
			a.stale = true
			a.dirty = a.dirty || !has // one copy fewer than was counted: a repair may be due
		}
	}
}
