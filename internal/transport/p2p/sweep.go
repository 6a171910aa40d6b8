package p2p

import "time"

// sweep closes what nobody uses and forgets what nobody needs.
func (t *Transport) sweep() {
	defer t.wg.Done()
	tick := time.NewTicker(t.times.sweep)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			t.sweepOnce(time.Now())
		case <-t.done:
			return
		}
	}
}

func (t *Transport) sweepOnce(now time.Time) {
	var idle []*link
	at := int64(now.Sub(base))
	for _, p := range t.allPeers() {
		p.mu.Lock()
		for i, l := range p.links {
			limit := spareTime
			if i == 0 {
				limit = idleTime
			}
			used := l.used.Load()
			if cs := t.connOf(l.conn); cs != nil {
				used = max(used, cs.used.Load())
			}
			if time.Duration(at-used) > limit && !(i == 0 && (p.pinned > 0 || relaying(l.conn))) {
				idle = append(idle, l)
			}
		}
		p.upgrade(now)
		if len(p.links) == 0 && !p.dialing && p.pinned == 0 && now.Sub(p.used) > time.Minute {
			p.dead = true
			p.flush()
		}
		dead := p.dead
		p.mu.Unlock()
		if dead {
			t.mu.Lock()
			if t.remotes[p.key] == p {
				delete(t.remotes, p.key)
			}
			t.mu.Unlock()
		}
	}
	for _, l := range idle {
		l.close()
	}
	for _, c := range t.swarm.Conns() {
		if cs := t.connOf(c); cs != nil && cs.bare() && now.Sub(c.Stat().Opened) > t.times.fresh {
			t.dropUnlinked(c)
		}
	}
	t.mu.Lock()
	for c := range t.conns {
		if c.IsClosed() {
			delete(t.conns, c)
		}
	}
	t.mu.Unlock()
	t.gate.sweep(now)
	t.asks.sweep(now)
	t.seen.sweep(now)
	t.blocks.meter.sweep(now)
}
