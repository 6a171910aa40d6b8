package dht

import (
	"slices"

	"atoll.example/atoll/internal/machine"
)

const maxSurvey = 256 // members asked at once

// cmdSurvey asks every live member what the arcs it leads look like.
func (n *Node) cmdSurvey(cmd uint64, c SurveyCmd) {
	var s Survey
	gs := n.m.Nearest(n.me.h.GUID, min(n.m.Count(), maxSurvey))
	open := 1
	end := func() {
		if open--; open > 0 {
			return
		}
		n.reply(cmd, s)
	}
	for _, g := range gs {
		p := n.lookup(g)
		if p == nil || p.gone {
			s.Silent = append(s.Silent, g)
			continue
		}
		open++
		n.ask(p, n.cfg.StatusTimeout, func(req uint64) machine.Message {
			return &surveyMsg{req: req, without: c.Without}
		}, func(p *peer, m machine.Message) {
			if a, ok := m.(*surveyAckMsg); ok {
				v := a.s
				v.Member = p.h.GUID
				s.Members = append(s.Members, v)
				s.Total.add(&v)
			} else {
				s.Silent = append(s.Silent, p.h.GUID)
			}
			end()
		})
	}
	end()
}

func (t *MemberSurvey) add(v *MemberSurvey) {
	t.Blocks += v.Blocks
	t.Full += v.Full
	t.Degraded += v.Degraded
	t.BelowW += v.BelowW
	t.Lost += v.Lost
	t.RepairQueued += v.RepairQueued
	t.RepairBytes += v.RepairBytes
	t.RepairRate += v.RepairRate
	t.Unsynced = t.Unsynced || v.Unsynced
	t.Usage.Limit += v.Usage.Limit
	t.Usage.Used += v.Usage.Used
	t.Usage.Reserve += v.Usage.Reserve
	t.Usage.Free += v.Usage.Free
	t.Usage.Blocks += v.Usage.Blocks
}

// onSurvey answers once what changed has been counted, or after three quarters
// of the time the asker waits.
func (n *Node) onSurvey(p *peer, m *surveyMsg) {
	until := n.now.Add(n.cfg.StatusTimeout.Scale(3, 4))
	n.countArcs(true)
	var look func()
	look = func() {
		if n.now < until && n.counting() {
			n.later(10*machine.Millisecond, look)
			return
		}
		if m.without.IsZero() {
			n.send(p, &surveyAckMsg{req: m.req, s: n.survey()})
			return
		}
		n.surveyWithout(p, m)
	}
	look()
}

// surveyWithout counts anew, an arc at a time.
func (n *Node) surveyWithout(p *peer, m *surveyMsg) {
	gone := n.peers[m.without]
	ans := n.survey()
	ans.Blocks, ans.Full, ans.Degraded, ans.BelowW, ans.Lost = 0, 0, 0, 0, 0
	arcs := n.arcs
	left := n.m.Count()
	if slices.Contains(n.m.Nearest(m.without, 1), m.without) {
		left-- // with a member fewer the pool may keep, and wait for, fewer copies
	}
	var next func()
	next = func() {
		if len(arcs) == 0 {
			n.send(p, &surveyAckMsg{req: m.req, s: ans})
			return
		}
		a := arcs[0]
		arcs = arcs[1:]
		if a.rank != 0 {
			next()
			return
		}
		var t tally
		n.tree.walk(a.lo, a.hi, func(e *entry) bool {
			if e.dead() {
				return true
			}
			c := n.copies(a, e)
			if gone != nil && e.holders&n.trusted(a)&gone.bit() != 0 || gone == n.me && e.have() {
				c--
			}
			t.add(c, min(n.kOf(e), max(left, 1)))
			return true
		})
		ans.Blocks += t.blocks
		ans.Full += t.full
		ans.Degraded += t.degraded
		ans.BelowW += t.belowW
		ans.Lost += t.lost
		n.later(machine.Millisecond, next)
	}
	next()
}

func (n *Node) counting() bool {
	for _, a := range n.arcs {
		if a.midway || a.dirty || a.copies != n.kEff(0) {
			return true
		}
	}
	return false
}

func (n *Node) survey() MemberSurvey {
	s := MemberSurvey{
		Member:       n.me.h.GUID,
		RepairQueued: int64(n.repair.queued()),
		RepairBytes:  n.stats.RepairBytes,
		RepairRate:   n.repairRate(),
		Usage:        n.cfg.Usage(),
		Unsynced:     len(n.arcs) == 0,
	}
	for _, a := range n.arcs {
		if !a.mine() {
			continue
		}
		s.Unsynced = s.Unsynced || !a.synced
		s.Blocks += a.stats.blocks
		s.Full += a.stats.full
		s.Degraded += a.stats.degraded
		s.BelowW += a.stats.belowW
		s.Lost += a.stats.lost
	}
	return s
}

// Survey returns what this node would answer to a survey, as counted last.
func (n *Node) Survey() MemberSurvey { return n.survey() }
