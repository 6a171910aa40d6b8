package dht

import (
	"math/bits"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// placed is a remembered answer to Locate.
type placed struct {
	arc    id.Arc
	inSet  int
	places []*peer
	until  machine.Time
}

const (
	maxPlaced    = 256
	placedFor    = 30 * machine.Second
	locateTries  = 4
	locateBudget = 5 * machine.Second // deadline of the routed message
)

// view is what this node itself knows of the placement of key: its set of k,
// and the candidates after it. False: the key is too far away.
func (n *Node) view(key id.GUID, k int) (set, rest []*peer, ok bool) {
	if k == 0 {
		k = n.cfg.K
	}
	n.settle()
	// At the edge of what the leaf set shows fewer candidates must do.
	var cands []*peer
	for count := 4 * k; ; count /= 2 {
		if cands, ok = n.circle.nearest(make([]*peer, 0, 4*k), key, count); ok {
			break
		}
		if count <= k {
			return nil, nil, false
		}
	}
	set = pickPeers(make([]*peer, 0, k), cands, k)
	for _, c := range cands {
		if !slices.Contains(set, c) {
			rest = append(rest, c)
		}
	}
	return set, rest, true
}

// place finds the set of key and the candidates after it, by itself or by a
// routed Locate, and calls f once; with nil if there was no answer in time. On
// the way of a Locate for get, a holder may have answered: it comes first.
func (n *Node) place(key id.GUID, k int, get bool, f func(set, rest []*peer)) {
	if set, rest, ok := n.known(key, k); ok {
		f(set, rest)
		return
	}
	n.locate(key, k, get, locateTries, f)
}

// known is place without a question: what this node sees itself, or was told a
// short time ago.
func (n *Node) known(key id.GUID, k int) (set, rest []*peer, ok bool) {
	if set, rest, ok = n.view(key, k); ok {
		return set, rest, true
	}
	for i := len(n.placed) - 1; i >= 0; i-- {
		c := &n.placed[i]
		if c.until > n.now && c.arc.Contains(key) {
			set, rest = n.placeFrom(key, k, c.places)
			return set, rest, true
		}
	}
	return nil, nil, false
}

func (n *Node) placeFrom(key id.GUID, k int, places []*peer) (set, rest []*peer) {
	if k == 0 {
		k = n.cfg.K
	}
	cands := slices.Clone(places)
	slices.SortStableFunc(cands, func(a, b *peer) int { return id.CmpDist(key, a.h.GUID, b.h.GUID) })
	set = pick(cands, k, n.domainOf)
	for _, c := range cands {
		if !slices.Contains(set, c) {
			rest = append(rest, c)
		}
	}
	return set, rest
}

func (n *Node) locate(key id.GUID, k int, get bool, tries int, f func(set, rest []*peer)) {
	n.stats.Locates++
	req := n.ask(nil, n.cfg.LocateTimeout, nil, func(_ *peer, m machine.Message) {
		l, ok := m.(*locatedMsg)
		switch {
		case !ok && tries > 1:
			n.locate(key, k, get, tries-1, f)
		case !ok:
			f(nil, nil)
		default:
			ps := make([]*peer, 0, len(l.places))
			for _, p := range l.places {
				q := n.peer(p.h)
				q.free = 1 << min(p.free, 62)
				ps = append(ps, q)
			}
			n.remember(l.arc, int(l.inSet), ps)
			f(n.placeFrom(key, k, ps))
		}
	})
	var w wire.Writer
	machine.AppendMessage(&w, &locateMsg{req: req, key: key, get: get})
	n.out = n.r.Route(n.now, kbr.Message{
		Key: key, App: kbr.AppDHT, Class: kbr.BestEffort,
		Origin: n.me.h, Deadline: locateBudget, Body: w.B,
	}, nil, n.out)
}

func (n *Node) remember(a id.Arc, inSet int, ps []*peer) {
	if a.IsFull() && a.Lo.IsZero() && inSet == 0 || len(ps) == 0 {
		return
	}
	if len(n.placed) >= maxPlaced {
		n.placed = slices.Delete(n.placed, 0, maxPlaced/4)
	}
	n.placed = append(n.placed, placed{a, inSet, ps, n.now.Add(placedFor)})
}

func readLocate(body []byte) (*locateMsg, bool) {
	m, err := Decode(body)
	if err != nil {
		return nil, false
	}
	l, ok := m.(*locateMsg)
	return l, ok
}

// Deliver is the upcall at the root of a routed Locate.
func (n *Node) Deliver(now machine.Time, m *kbr.Message, _ kbr.Ownership, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() {
		l, ok := readLocate(m.Body)
		if !ok || m.Origin == nil {
			n.stats.Dropped++
			return
		}
		set, rest, ok := n.view(l.key, 0)
		if !ok {
			return // the asker repeats the question
		}
		ans := &locatedMsg{req: l.req, key: l.key, inSet: uint8(len(set))}
		if a := n.arcOf(l.key); a != nil {
			ans.arc = id.Arc{Lo: a.lo, Hi: a.hi.Add(one)}
		} else {
			ans.arc = id.Arc{Lo: l.key, Hi: l.key.Add(one)}
		}
		ans.places = n.places(append(set, rest...))
		n.send(n.peer(m.Origin), ans)
	})
}

func (n *Node) places(ps []*peer) []place {
	out := make([]place, 0, len(ps))
	for _, p := range ps[:min(len(ps), maxSet)] {
		free := p.free
		if p == n.me {
			free = uint64(max(0, n.cfg.Usage().Free))
		}
		out = append(out, place{p.h, uint8(bits.Len64(free)), n.domainOf(p)})
	}
	return out
}

// Forward is the upcall on the way: a holder of the bytes answers a Locate for
// get at once, itself first, so the question ends at the nearest replica.
func (n *Node) Forward(now machine.Time, m *kbr.Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	if next == nil || m.Origin == nil || m.Origin.GUID == n.me.h.GUID {
		return out, true
	}
	l, ok := readLocate(m.Body)
	if !ok || !l.get {
		return out, true
	}
	e := n.tree.get(l.key)
	if e == nil || !e.have() || e.signed() {
		return out, true
	}
	return n.with(now, out, func() {
		n.send(n.peer(m.Origin), &locatedMsg{
			req: l.req, key: l.key, inSet: 1,
			arc:    id.Arc{Lo: l.key, Hi: l.key.Add(one)},
			places: n.places([]*peer{n.me}),
		})
	}), false
}

// Drop is the upcall of a message that ended without delivery: its question
// times out and is repeated.
func (n *Node) Drop(now machine.Time, m *kbr.Message, _ error, out []machine.Effect) []machine.Effect {
	return n.with(now, out, func() { n.stats.LocateDrops++ })
}

// LookupCmd asks where a key is kept.
type LookupCmd struct{ Key id.GUID }

// Located answers LookupCmd: the root first.
type Located struct {
	Key        id.GUID
	Set        []*id.Handle
	Candidates []*id.Handle
}

func (n *Node) cmdLookup(cmd uint64, c LookupCmd) {
	n.place(c.Key, 0, false, func(set, rest []*peer) {
		if len(set) == 0 {
			n.refuse(cmd, &Refusal{Code: CodeUnavailable, Detail: "no answer from the root of " + c.Key.Short()})
			return
		}
		n.reply(cmd, Located{c.Key, handles(set), handles(rest)})
	})
}
