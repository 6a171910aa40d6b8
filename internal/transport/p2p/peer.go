package p2p

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// remote is what we hold about one other node, named by its key.
type remote struct {
	t   *Transport
	key [32]byte
	pid peer.ID
	// kick wakes the dial loop: a link has come, or new addresses.
	kick chan struct{}

	mu       sync.Mutex
	dead     bool       // removed from the table: look it up again
	own      *id.Handle // as the peer itself said last, in a handshake
	said     *id.Handle // newest that others said of it
	ctl, blk queue
	links    []*link // best first
	turn     *link   // the link whose control frames are being delivered
	dialing  bool
	fails    int       // dials in a row that failed
	next     time.Time // no dial before
	refused  error     // why the peer does not want us
	until    time.Time // refused is taken for granted until then
	used     time.Time // last Send, link or dial
	direct   upgrades  // from a relayed path to a direct one
	hurries  int       // such attempts out of turn, since the path is relayed
	quic     upgrades  // of a relay, from TCP to QUIC
	pinned   int       // reasons to keep an idle link: reservations
}

// upgrades are attempts in a row to get to a better path.
type upgrades struct {
	n    int
	last time.Time
}

// due reports whether the next one is due: the first is at once.
func (u *upgrades) due(now time.Time) bool {
	return u.n == 0 || now.Sub(u.last) >= min(lastUpgrade, firstUpgrade<<min(u.n-1, 10))
}

func (u *upgrades) note(now time.Time) { u.n, u.last = u.n+1, now }

var (
	errSelf   = fmt.Errorf("%w: that is this node", transport.ErrUnreachable)
	errGUID   = fmt.Errorf("%w: the key answers to another GUID", transport.ErrUnreachable)
	errEmpty  = errors.New("empty frame")
	errNoAddr = fmt.Errorf("%w: no address that may be dialled", transport.ErrUnreachable)
)

// Send queues a frame; see transport.Transport.
func (t *Transport) Send(to *id.Handle, bulk bool, frame ...[]byte) error {
	size := transport.Size(frame)
	limit := transport.MaxControl
	if bulk {
		limit = transport.MaxBulk
	}
	switch {
	case size > limit:
		return transport.ErrTooLarge
	case size == 0:
		return errEmpty
	case to.Key == t.key:
		return errSelf
	}
	p, err := t.remoteFor(to.Key)
	if err != nil {
		return err
	}
	defer p.mu.Unlock() // remoteFor has locked it
	if p.own != nil && p.own.GUID != to.GUID {
		return errGUID
	}
	now := time.Now()
	p.used = now
	if p.said != to && p.own != to {
		p.note(to)
	}
	if len(p.links) == 0 && p.refused != nil && now.Before(p.until) {
		return p.refused
	}
	q, room := &p.ctl, t.cfg.Limits.PeerCtl
	if bulk {
		q, room = &p.blk, t.cfg.Limits.PeerBulk
	}
	n := int64(size)
	if q.bytes+size > room {
		t.stats.queueFull.Add(1)
		return transport.ErrQueueFull
	}
	if t.queued.Add(n) > t.cfg.Limits.Queued {
		t.queued.Add(-n)
		t.stats.queueFull.Add(1)
		return transport.ErrQueueFull
	}
	q.push(item{frame, size, int64(now.Sub(base))})
	p.wake()
	return nil
}

// note takes a newer handle from hearsay. A lie about the epoch does no harm:
// what the peer itself said is kept beside it and dialled too. p.mu is held.
func (p *remote) note(h *id.Handle) {
	if p.said != nil && h.Epoch < p.said.Epoch {
		return
	}
	fresh := p.said == nil || h.Epoch > p.said.Epoch || !slices.Equal(h.Addrs, p.said.Addrs)
	p.said = h
	if fresh && p.dialing {
		p.fails, p.next = 0, time.Time{}
		p.nudge()
	}
}

// addrs are the addresses to dial, those of the newest handle first. p.mu is held.
func (p *remote) addrs() []string {
	var list []string
	add := func(h *id.Handle) {
		if h == nil {
			return
		}
		for _, a := range h.Addrs {
			if !slices.Contains(list, a) && len(list) < 2*id.MaxAddrs {
				list = append(list, a)
			}
		}
	}
	if p.own != nil && (p.said == nil || p.own.Epoch >= p.said.Epoch) {
		add(p.own)
		add(p.said)
	} else {
		add(p.said)
		add(p.own)
	}
	return list
}

func (p *remote) nudge() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// wake sees to it that queued frames get going. p.mu is held.
func (p *remote) wake() {
	if len(p.links) > 0 {
		l := p.links[0]
		if p.ctl.len() > 0 {
			l.nudge()
		}
		if p.blk.len() > 0 {
			l.nudgeBulk()
		}
		return
	}
	if p.dialing || (p.ctl.len() == 0 && p.blk.len() == 0) {
		return
	}
	if !p.t.enter() {
		return
	}
	p.dialing = true
	go p.dial()
}

// take pops control frames for l to write, up to about limit bytes, if l is
// the link to write on. move reports that it is not.
func (p *remote) take(l *link, limit int, into []item) (frames []item, bytes int, move bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.links) == 0 || p.links[0] != l {
		return into, 0, true
	}
	for p.ctl.len() > 0 && bytes < limit {
		f := p.ctl.pop()
		bytes += f.size
		into = append(into, f)
	}
	p.t.queued.Add(-int64(bytes))
	return into, bytes, false
}

// takeBulk pops one bulk frame for l to write. Its bytes stay counted as
// queued until they are written.
func (p *remote) takeBulk(l *link) (f item, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.links) == 0 || p.links[0] != l || p.blk.len() == 0 {
		return item{}, false
	}
	f = p.blk.pop()
	if p.blk.len() > 0 {
		l.nudgeBulk()
	}
	return f, true
}

// expire drops frames that have waited too long. p.mu is held.
func (p *remote) expire() {
	limit := since() - int64(p.t.times.queued)
	n, b := p.ctl.expire(limit)
	m, c := p.blk.expire(limit)
	p.t.queued.Add(-int64(b + c))
	p.t.stats.expired.Add(uint64(n + m))
}

// flush drops all queued frames. p.mu is held.
func (p *remote) flush() {
	n := p.ctl.len() + p.blk.len()
	p.t.queued.Add(-int64(p.ctl.bytes + p.blk.bytes))
	p.t.stats.lost.Add(uint64(n))
	p.ctl, p.blk = queue{}, queue{}
}

// dial tries until a link is there or no frame waits for one.
func (p *remote) dial() {
	t := p.t
	defer t.wg.Done()
	for {
		p.mu.Lock()
		p.expire()
		if len(p.links) > 0 || t.isClosed() || (p.ctl.len() == 0 && p.blk.len() == 0) {
			p.dialing = false
			p.wake()
			p.mu.Unlock()
			return
		}
		wait, addrs := time.Until(p.next), p.addrs()
		p.mu.Unlock()
		if wait > 0 && !t.pause(wait, p.kick) {
			continue
		}
		select {
		case t.dialing <- struct{}{}:
		case <-t.done:
			continue
		}
		err := t.connect(p, addrs)
		<-t.dialing
		p.mu.Lock()
		p.settle(err)
		p.mu.Unlock()
	}
}

// settle notes how a dial went. p.mu is held.
func (p *remote) settle(err error) {
	p.used = time.Now()
	if err == nil {
		p.fails, p.next, p.refused = 0, time.Time{}, nil
		return
	}
	p.t.stats.dialsFailed.Add(1)
	pause := firstRetry << min(p.fails, 10)
	p.fails++
	pause = min(pause, lastRetry)
	p.next = time.Now().Add(pause/2 + rand.N(pause/2+1))
	if p.fails == 1 {
		p.t.log.Debug("cannot reach a peer", "key", fmt.Sprintf("%x", p.key[:4]), "err", err)
	}
	if errors.Is(err, transport.ErrRefused) {
		p.refused, p.until = err, time.Now().Add(refusedTime)
		p.flush()
	}
}

// pause waits d and returns true, or false if ch or the end came first.
func (t *Transport) pause(d time.Duration, ch <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ch:
	case <-t.done:
	}
	return false
}

// connect makes one attempt to have a link with p at those of addrs that may be
// dialled, and where multicast DNS has seen it.
func (t *Transport) connect(p *remote, addrs []string) error {
	ctx, cancel := context.WithTimeout(t.ctx, dialTime+relayHead+t.times.shake)
	defer cancel()
	t.stats.dials.Add(1)
	list := make([]ma.Multiaddr, 0, len(addrs))
	for _, a := range addrs {
		m, err := decodeAddr(a)
		if err != nil || !t.reach.allows(m) || (t.cfg.NoQUIC && isQUIC(m)) {
			continue
		}
		list = append(list, m)
	}
	for _, m := range t.seen.of(p.key) {
		if !ma.Contains(list, m) && !(t.cfg.NoQUIC && isQUIC(m)) {
			list = append(list, m)
		}
	}
	conn, err := t.dialConn(ctx, p.pid, list)
	if err != nil {
		return err
	}
	if _, err = t.shake(ctx, conn); err != nil {
		t.dropUnlinked(conn)
	}
	return err
}

// upgrade tries to get from a relayed path to a direct one. p.mu is held.
func (p *remote) upgrade(now time.Time) {
	if len(p.links) == 0 || !p.links[0].relayed {
		p.direct.n, p.hurries = 0, 0
		return
	}
	direct := slices.DeleteFunc(p.addrs(), func(a string) bool {
		m, err := decodeAddr(a)
		return err != nil || kindOf(m) == kindRelay
	})
	// DCUtR begins with the side that the relayed path came in at.
	punch := p.links[0].conn.Stat().Direction == network.DirInbound && p.t.nat.punch.ready()
	if len(direct) == 0 && !punch || !p.direct.due(now) || !p.t.enter() {
		return
	}
	p.direct.note(now)
	go func() {
		defer p.t.wg.Done()
		if punch {
			p.t.nat.punch.again(p.pid)
		}
		if len(direct) == 0 {
			return
		}
		if err := p.t.connect(p, direct); err != nil {
			p.t.log.Debug("still on a relayed path", "key", fmt.Sprintf("%x", p.key[:4]), "err", err)
		}
	}()
}

// hurry tries at once to get off a relayed path, since the prospects are better
// than before. It may be the peer who says so, and so has a bound.
func (p *remote) hurry(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hurries < maxHurries {
		p.hurries++
		p.direct.n = 0
		p.upgrade(now)
	}
}

// better orders the links to one peer, the one to write on first. Both ends
// must come to the same order: a newer boot of the peer, then a direct path,
// then of links that came about the same time the one opened by the smaller
// key, since those are a simultaneous open, and else the newer one, since
// whoever opened it held the older for dead.
func (l *link) better(m *link) bool {
	const sameTime = 10 * time.Second
	if l.h.Epoch != m.h.Epoch {
		return l.h.Epoch > m.h.Epoch
	}
	if l.relayed != m.relayed {
		return m.relayed
	}
	if d := l.opened.Sub(m.opened).Abs(); d < sameTime && l.opener != m.opener {
		return l.opener == (string(l.p.t.key[:]) < string(l.p.key[:]))
	}
	return l.opened.After(m.opened)
}

// sort puts the best link first and tells the writers. p.mu is held.
func (p *remote) sort() {
	var old *link
	if len(p.links) > 0 {
		old = p.links[0]
	}
	slices.SortStableFunc(p.links, func(a, b *link) int {
		switch {
		case a.better(b):
			return -1
		case b.better(a):
			return 1
		}
		return 0
	})
	if old != nil && p.links[0] != old {
		old.nudge()
	}
}
