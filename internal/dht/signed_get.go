package dht

import (
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

// signedGet is one GetSignedCmd under way.
type signedGet struct {
	n        *Node
	cmd      uint64
	c        GetSignedCmd
	deadline machine.Time
	set      []*peer
	asked    map[*peer]*signedAnswer
	reqs     []uint64
	open     int
	wide     bool
	best     *Signed
	ver      version
	fork     bool
	writing  bool
	rounds   int
	alarm    uint64
	ended    bool
}

type signedAnswer struct {
	done   bool
	state  presence
	quorum bool
	ver    version
}

func (n *Node) cmdGetSigned(cmd uint64, c GetSignedCmd) {
	op := &signedGet{n: n, cmd: cmd, c: c, deadline: n.now.Add(n.cfg.OpDeadline)}
	op.place()
}

func (op *signedGet) place() {
	n := op.n
	op.asked = make(map[*peer]*signedAnswer, 4)
	op.wide, op.open, op.set = false, 0, nil
	n.place(op.c.GUID, 0, false, func(set, _ []*peer) {
		if len(set) == 0 {
			op.retry(CodeUnavailable)
			return
		}
		op.set = set
		op.open++
		for _, p := range set {
			op.ask(p)
		}
		op.open--
		op.watch()
	})
}

func (op *signedGet) ask(p *peer) {
	n := op.n
	if op.asked[p] != nil {
		return
	}
	a := &signedAnswer{}
	op.asked[p] = a
	op.open++
	round := op.rounds
	op.reqs = append(op.reqs, n.ask(p, min(n.cfg.ClientTimeout, max(op.deadline.Sub(n.now), 1)), func(req uint64) machine.Message {
		return &getSignedMsg{req: req, roster: n.m.Digest(), guid: op.c.GUID}
	}, func(p *peer, m machine.Message) {
		switch {
		case round != op.rounds:
		case op.ended:
			op.late(p, m)
		default:
			op.open--
			op.answer(p, a, m)
		}
	}))
}

// late repairs a member whose answer, after the end, shows it behind.
func (op *signedGet) late(p *peer, m machine.Message) {
	a, ok := m.(*signedIsMsg)
	if !ok || op.best == nil || op.fork || !a.quorum || a.guid != op.c.GUID {
		return
	}
	for i := range a.recs {
		if v := versionOf(&a.recs[i]); !op.ver.newer(&v) {
			return
		}
	}
	op.n.stats.WriteBacks++
	op.n.ask(p, op.n.cfg.ClientTimeout, func(req uint64) machine.Message {
		return &putSignedMsg{req: req, roster: op.n.m.Digest(), stage: stageReplica, rec: *op.best, guid: op.c.GUID}
	}, func(*peer, machine.Message) {})
}

func (op *signedGet) answer(p *peer, a *signedAnswer, m machine.Message) {
	n := op.n
	a.done, a.state = true, unsynced
	switch m := m.(type) {
	case nil:
		n.silent(p)
	case *refuseMsg:
	case *signedIsMsg:
		if m.guid != op.c.GUID {
			n.strike(p, "another block than asked for")
			break
		}
		a.state, a.quorum = m.state, m.quorum
		if op.writing {
			break // what is answered is the version that is being brought to W
		}
		for i := range m.recs {
			op.consider(p, a, &m.recs[i])
		}
	default:
		n.strike(p, "wrong answer to GetSigned")
	}
	op.decide()
}

// consider takes note of a record, verifying each version once.
func (op *signedGet) consider(p *peer, a *signedAnswer, s *Signed) {
	n := op.n
	v := versionOf(s)
	if op.best == nil || v.seq != op.ver.seq || v.hash != op.ver.hash {
		if s.Pool != n.cfg.Pool || s.GUID() != op.c.GUID || !s.Verify(n.cfg.Verify) {
			n.strike(p, "signed block with a bad signature")
			a.state, a.quorum = unsynced, false
			return
		}
	}
	if v.newer(&a.ver) {
		a.ver = v
	}
	if op.best != nil && v.seq == op.ver.seq && v.hash != op.ver.hash {
		op.fork = true
	}
	if op.best == nil || v.newer(&op.ver) {
		if v.seq != op.ver.seq {
			op.fork = false
		}
		op.best, op.ver = s, v
	}
}

// decide ends the read as soon as the answers allow.
func (op *signedGet) decide() {
	n := op.n
	if op.ended || op.writing {
		return
	}
	if op.c.Any && op.best != nil && op.ver.seq >= op.c.MinSeq {
		op.reply()
		return
	}
	k := n.kEff(0)
	w := quorum(k)
	need := k - w + 1
	votes := 0
	for p, a := range op.asked {
		if a.done && a.quorum && slices.Contains(op.set, p) && (a.state == have || a.state == absent) {
			votes++
		}
	}
	switch {
	case votes >= need && op.best != nil && op.ver.seq >= op.c.MinSeq:
		op.writeBack(w)
	case op.open > 0:
	case op.best == nil && !op.wide:
		// Not found only if the roster's nearest say so too.
		op.wide = true
		op.open++
		for _, g := range n.deniers(op.c.GUID) {
			if p := n.lookup(g); p != nil {
				op.ask(p)
			}
		}
		op.open--
		if op.open == 0 {
			op.decide()
		}
	case op.best == nil && op.allAbsent():
		op.end(&Refusal{Code: CodeNotFound}, nil)
	default:
		op.retry(CodeUnavailable)
	}
}

func (op *signedGet) allAbsent() bool {
	n := op.n
	for _, p := range op.set {
		if a := op.asked[p]; a == nil || !a.done || a.state != absent {
			return false
		}
	}
	for _, g := range n.deniers(op.c.GUID) {
		p := n.lookup(g)
		if p == nil {
			return false
		}
		a := op.asked[p]
		if a == nil || !a.done || a.state != absent && (a.state != outside || slices.Contains(op.set, p)) {
			return false
		}
	}
	return true
}

// writeBack brings the highest version to W members before it is answered, and
// to those who are behind in any case (read repair).
func (op *signedGet) writeBack(w int) {
	n := op.n
	holders := 0
	var behind []*peer
	for _, p := range op.set {
		a := op.asked[p]
		if a != nil && a.done && a.quorum && a.ver.seq == op.ver.seq && a.ver.hash == op.ver.hash {
			holders++
		} else if a == nil || !a.done || a.quorum {
			behind = append(behind, p)
		}
	}
	if op.fork || n.cfg.Bugs.NoWriteBack {
		op.reply()
		return
	}
	op.writing = true
	if holders >= w {
		op.reply()
	}
	for _, p := range behind {
		a := op.asked[p]
		if a != nil && !a.done && op.ended {
			continue // its answer will tell: late
		}
		n.stats.WriteBacks++
		round := op.rounds
		n.ask(p, n.cfg.ClientTimeout, func(req uint64) machine.Message {
			return &putSignedMsg{req: req, roster: n.m.Digest(), stage: stageReplica, rec: *op.best, guid: op.c.GUID}
		}, func(_ *peer, m machine.Message) {
			if op.ended || round != op.rounds {
				return
			}
			if _, ok := m.(*putSignedAckMsg); ok {
				holders++
			}
			if holders >= w {
				op.reply()
			}
		})
	}
	if !op.ended {
		op.watch()
	}
}

// watch starts the read over if it does not come to an end.
func (op *signedGet) watch() {
	n := op.n
	if op.alarm != 0 {
		n.cancel(op.alarm)
	}
	op.alarm = n.later(n.cfg.ClientTimeout+100*machine.Millisecond, func() {
		op.alarm = 0
		op.retry(CodeUnavailable)
	})
}

// retry starts over while the deadline allows.
func (op *signedGet) retry(code string) {
	n := op.n
	if op.ended {
		return
	}
	op.writing = false
	op.rounds++
	wait := machine.Jitter(n.rnd, 300*machine.Millisecond, 200_000)
	if n.now.Add(wait) >= op.deadline || op.rounds > 12 {
		var ps []*peer
		for p, a := range op.asked {
			if !a.done || a.state == unsynced {
				ps = append(ps, p)
			}
		}
		op.end(&Refusal{Code: code, Nodes: guids(ps), Detail: "no read quorum"}, nil)
		return
	}
	if op.alarm != 0 {
		n.cancel(op.alarm)
		op.alarm = 0
	}
	n.later(wait, func() {
		if !op.ended {
			op.place()
		}
	})
}

func (op *signedGet) reply() {
	switch {
	case op.fork:
		op.n.stats.Forks++
		op.n.trace("dht.equivocation", id.GUID{}, op.c.GUID, int64(op.ver.seq), "")
		op.end(&Refusal{Code: CodeEquivocation, Stamp: op.ver.seq, Detail: "the owner signed two values under one seq"}, op.best)
	case op.best.Removed:
		op.end(&Refusal{Code: CodeRemoved, Stamp: op.ver.seq}, op.best)
	default:
		op.end(nil, op.best)
	}
}

func (op *signedGet) end(r *Refusal, s *Signed) {
	n := op.n
	if op.ended {
		return
	}
	op.ended = true
	if op.alarm != 0 {
		n.cancel(op.alarm)
	}
	e := machine.Effect{Kind: machine.Reply, ID: op.cmd}
	if s != nil {
		e.Body = s
	}
	if r != nil {
		n.stats.refused(r.Code)
		e.Err = r
	} else {
		n.stats.SignedGets++
	}
	n.out = append(n.out, e)
}
