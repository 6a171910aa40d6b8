package pastry

import (
	"atoll.example/atoll/internal/machine"
)

// lost notes the loss of a leaf. A tenth of them within a minute looks like a
// partition: for an hour the other side is sought often.
func (n *Node) lost() {
	recent := n.losses[:0]
	for _, t := range n.losses {
		if n.now.Sub(t) < recentDeath {
			recent = append(recent, t)
		}
	}
	n.losses = append(recent, n.now)
	if 10*len(n.losses) >= n.leaf.Len() {
		n.healUntil = n.now.Add(n.cfg.HealFor)
		n.armHeal()
	}
}

func (n *Node) healPeriod() machine.Duration {
	switch {
	case n.leaf.Len() == 0:
		return n.cfg.HealAlone
	case n.now < n.healUntil:
		return n.cfg.HealFast
	}
	return n.cfg.HealSlow
}

func (n *Node) armHeal() {
	at := n.now.Add(machine.Jitter(&n.rnd, n.healPeriod(), 100_000))
	if n.timers.When(timer{tHeal, 0}) > at {
		n.timers.Set(timer{tHeal, 0}, at)
	}
}

// heal looks for the other side of a partition.
func (n *Node) heal() {
	if n.state != Ready {
		return
	}
	n.armHeal()
	n.look()
}

// look sends a Join{look} for this node's own place through a random node that
// is not among those it has: an evicted one first. The answer is the other
// side's view of this place, however large both sides have grown.
func (n *Node) look() {
	if n.state != Ready {
		return
	}
	var failed, other uint32
	nf, no := 0, 0
	for r := uint32(1); r < n.peers.end(); r++ {
		p := n.peer(r)
		if p.h == nil || p.flags&(fLeaf|fForgotten|fLeft) != 0 {
			continue
		}
		if p.flags&fFailed != 0 {
			if nf++; n.rnd.IntN(nf) == 0 {
				failed = r
			}
		} else if p.flags&fSuspect == 0 {
			if no++; n.rnd.IntN(no) == 0 {
				other = r
			}
		}
	}
	r := failed
	if r == 0 {
		r = other
	}
	if r == 0 {
		return
	}
	n.lookNonce = n.nonce()
	n.send(r, &Join{X: n.self, Nonce: n.lookNonce, Look: true})
}

// onLook takes the answer: whoever belongs in our leaf set is asked.
func (n *Node) onLook(r uint32, m *JoinReply) {
	if n.state != Ready || m.Nonce != n.lookNonce || m.Nonce == 0 {
		return
	}
	n.setReady(r, true)
	for _, h := range m.L {
		if h.GUID == n.me {
			continue
		}
		if q := n.intern(h); q != 0 {
			n.candidate(q)
		}
	}
}

// alone: a restarted member has reached nobody who is ready. It serves on its
// own, best-effort at once, the owned class when all it may ever have granted
// has lapsed. Restarted members that see each other let the smallest GUID go
// first, so that the others can join it.
func (n *Node) alone() {
	j := &n.join
	if n.state != Joining {
		if n.state == Settling {
			n.set(tAlone, 0, n.cfg.AloneAfter)
		}
		return
	}
	if j.ringSeen {
		// There is a ring: keep trying to enter it, but do not rely on it for
		// ever.
		j.ringSeen = false
		n.set(tAlone, 0, n.cfg.LockLife)
		return
	}
	if j.smaller && !j.waited {
		j.waited = true
		n.set(tAlone, 0, machine.Jitter(&n.rnd, n.cfg.AloneAfter, 250_000))
		return
	}
	n.abandonJoin()
	if n.everAdmit {
		from := j.since
		if j.ringAt != 0 {
			from = n.now // it has met others in this life: they may live
		}
		n.ownedAfter = from.Add(n.longestLease())
	}
	n.leaf.Wrap()
	n.healUntil = n.now.Add(n.cfg.HealFor)
	n.becomeReady()
}
