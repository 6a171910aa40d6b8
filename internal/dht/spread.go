package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// spread is what a coordinator does with a put, a remove or a signed put: it
// brings one record to the set until W members have it on disk, answers, and
// goes on to k in the background. A member that is silent for its RTO before W
// is reached gets a stand-in.
type spread struct {
	n        *Node
	key      id.GUID
	k, need  int
	quorum   func() int // by the roster of now; nil: need is what the client asked for
	standIns bool
	holds    bool // those who acknowledge hold the bytes then
	client   *peer
	req      uint64 // of the client
	// anchor are members of whom one must be among those that acknowledge; see
	// Node.anchor. Empty: none needed.
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
	told     bool // see over
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
	s.n.spreads++
	s.anchored = len(s.anchor) == 0
	s.refresh()
	s.seekAnchor()
	s.watch()
	s.n.later(s.n.cfg.ClientTimeout/3, s.working)
}

// working tells the client now and then that it is not forgotten. If members
// have left and fewer receipts would do, it is to ask anew: its roster and this
// node's agree first on how many.
func (s *spread) working() {
	if s.answered || s.ended {
		return
	}
	if s.quorum != nil && s.quorum() < s.need {
		s.failed(&Refusal{Code: CodeBusy, AfterMS: 50, Detail: "the pool has fewer members now"})
		s.finish()
		return
	}
	if s.client != s.n.me {
		s.n.send(s.client, &workingMsg{req: s.req})
	}
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
	// However slow t was of late, there must be time to ask again: a link may have
	// taken the question with it.
	most := s.n.cfg.OpDeadline / 4
	t.rto = t.p.copies(size).rto(machine.Second, s.n.cfg.AckFloor, most) + transferTime(size, s.n.rate)
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
			// A stand-in first, if there is one; the question again after as long a wait.
			t.gone = true
			n.silent(t.p)
			if s.standIn() {
				t.at = n.now
				continue
			}
		}
		s.send(t, false)
	}
	if !s.ended {
		s.seekAnchor()
		s.watch()
	}
}

// seekAnchor asks one member of the anchor outside the set, if none that was
// asked may still acknowledge: newcomers have taken all its places.
func (s *spread) seekAnchor() {
	if s.anchored || s.answered || !s.standIns || len(s.receipts) >= maxReceipts {
		return
	}
	for _, t := range s.targets {
		if !t.done && !t.gone && t.no == nil && slices.Contains(s.anchor, t.p.h.GUID) {
			return
		}
	}
	for _, g := range s.anchor {
		if p := s.n.lookup(g); p != nil && s.target(p) == nil && p.suspect <= s.n.now {
			s.n.trace("dht.anchor", g, s.key, 0, "")
			s.ask(p, RoleStandIn)
			return
		}
	}
}

// standIn asks the next candidate in place of a silent member. It returns false if
// there is none.
func (s *spread) standIn() bool {
	if s.answered || !s.standIns || len(s.receipts) >= maxReceipts {
		return false
	}
	_, rest, _ := s.n.view(s.key, s.k)
	for _, p := range rest {
		if s.target(p) == nil && p.suspect <= s.n.now {
			s.n.stats.StandIns++
			s.n.trace("dht.standin", p.h.GUID, s.key, 0, "")
			s.ask(p, RoleStandIn)
			return true
		}
	}
	return false
}

// acked counts t's receipt.
func (s *spread) acked(t *target, rs []Receipt) {
	if t.done || s.ended {
		return
	}
	t.done = true
	if s.twice(rs) {
		s.standIn()
		s.check()
		return
	}
	s.acks++
	s.anchored = s.anchored || slices.Contains(s.anchor, t.p.h.GUID)
	if !s.answered {
		s.receipts = append(s.receipts, rs...)
	}
	if !s.answered && s.acks >= s.need && s.anchored {
		s.answered = true
		s.atW()
		s.over()
	}
	s.check()
}

// twice reports whether a node that has acknowledged does so again: a member has
// diverted its copy to one that came into the set since. That is one copy.
func (s *spread) twice(rs []Receipt) bool {
	return len(rs) > 0 && slices.ContainsFunc(s.receipts, func(r Receipt) bool { return r.Node == rs[0].Node })
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

// maybe are those that were asked and have not refused: what they were sent is on
// their disks, or may come there still.
func (s *spread) maybe() (gs []id.GUID) {
	for _, t := range s.targets {
		if t.tries > 0 && t.no == nil {
			gs = append(gs, t.p.h.GUID)
		}
	}
	return gs
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
		for _, g := range s.n.deniers(s.key) {
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

// over: the client has its answer.
func (s *spread) over() {
	if !s.told {
		s.told = true
		s.n.spreads--
		s.n.stopped()
	}
}

func (s *spread) finish() {
	if s.ended {
		return
	}
	s.ended = true
	s.over()
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
