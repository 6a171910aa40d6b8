package pastry

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/ring"
)

// What is known of a peer.
const (
	fVerified  uint16 = 1 << iota // it answered us directly, in this epoch
	fReady                        // it said that it is ready
	fLeaf                         // in the leaf set
	fTable                        // in the routing table
	fSuspect                      // out of routing until it answers
	fIndirect                     // suspected, but it answers others
	fFailed                       // evicted, at failedAt
	fLeft                         // said goodbye in this epoch
	fQueued                       // in the candidate queue
	fForgotten                    // revoked: never again
	fAgain                        // did not answer an LSProbe: to be asked again
)

// peer is all a node keeps of another one: 64 bytes, and what at holds while
// there is anything. Peers are interned: inside the machine a node is a u32, its
// index. 0 is nobody.
type peer struct {
	h        *id.Handle
	at       *work
	rtt      ring.RTT
	heard    machine.Time
	failedAt machine.Time // meaningful with fFailed
	asked    machine.Time // last LSProbe sent to learn whether it fits; 0 never
	ref      uint32
	heardSec uint32 // wall clock, s, for the saved table
	pins     int32  // flights, proofs and other users that hold the reference
	flags    uint16
	rounds   uint8 // of LSProbes without answer
	fetches  uint8 // of HandlesReqs without answer
}

// work is what few peers have at any time.
type work struct {
	claimed *id.Handle // a newer handle others tell of, not yet proven
	proof   *proof     // probes under way
	ask     *asking    // LSProbe under way
	link    *link      // exchange of beats
	ping    *pinging   // Probe for a table slot or on behalf of another
}

// work is what is under way with p, to read.
func (p *peer) work() work {
	if p.at == nil {
		return work{}
	}
	return *p.at
}

// begin is what is under way with p, to add to it.
func (p *peer) begin() *work {
	if p.at == nil {
		p.at = new(work)
	}
	return p.at
}

// rest lets go of p's work if nothing is left of it.
func (p *peer) rest() {
	if *p.at == (work{}) {
		p.at = nil
	}
}

func (p *peer) endProof() {
	p.at.proof = nil
	p.rest()
}

// maxPeers bounds the peers kept because others told of them. Those that spoke
// to us are members, and as many as there are.
const maxPeers = 8192

// peers keeps the peers of a node, without a gap between them: a joiner meets
// two or three times as many as it will keep. References stay what they are.
type peers struct {
	list  []peer   // the first is nobody, and always zero
	place []uint32 // of a reference in list; with freeRef, it is free and the next such follows
	free  uint32   // reference freed last, 0: none
	index id.Index
}

const freeRef = 1 << 31

func newPeers() peers { return peers{list: make([]peer, 1, 32), place: make([]uint32, 1, 32)} }

// end is above all references.
func (p *peers) end() uint32 { return uint32(len(p.place)) }

// at returns r's peer, nobody if r is free. The pointer is good until a peer is
// added or removed.
func (p *peers) at(r uint32) *peer {
	i := p.place[r]
	if i >= freeRef {
		i = 0
	}
	return &p.list[i]
}

// GUIDAt makes peers what the index finds GUIDs in.
func (p *peers) GUIDAt(r uint32) *id.GUID { return &p.at(r).h.GUID }

// find returns the reference of g's node, 0 if it is not known.
func (p *peers) find(g id.GUID) uint32 { return p.index.Find(&g, p) }

func prefix(g id.GUID) uint64 { return binary.BigEndian.Uint64(g[:8]) }

func refOf(h *id.Handle) Ref { return Ref{Prefix: prefix(h.GUID), Epoch: h.Epoch} }

func (p *peers) add(h *id.Handle) uint32 {
	if len(p.list) == cap(p.list) {
		p.resize(len(p.list) * 3 / 2)
	}
	i := uint32(len(p.list))
	r := p.free
	if r != 0 {
		p.free = p.place[r] &^ freeRef
		p.place[r] = i
	} else {
		r = p.end()
		p.place = append(p.place, i)
	}
	p.list = append(p.list, peer{h: h, ref: r})
	p.index.Add(r, p)
	return r
}

// remove forgets r. The last peer of the list takes its place there.
func (p *peers) remove(r uint32) {
	p.index.Remove(r, p)
	i, last := p.place[r], len(p.list)-1
	p.list[i] = p.list[last]
	p.place[p.list[i].ref] = i
	p.list[last] = peer{}
	p.list = p.list[:last]
	p.place[r], p.free = freeRef|p.free, r
}

func (p *peers) resize(capacity int) { p.list = append(make([]peer, 0, capacity), p.list...) }

// fit gives back the room of peers that are gone.
func (p *peers) fit() {
	if n := len(p.list); cap(p.list) > 32+n*3/2 {
		p.resize(n * 5 / 4)
	}
	p.index.Fit(p)
	if p.list[0] != (peer{}) {
		panic("pastry: something is known of nobody")
	}
}

func (n *Node) peer(r uint32) *peer { return n.peers.at(r) }

// intern returns the reference of h's node. An unproven newer handle of a
// known node is kept aside: handles are not signed, so only the node itself
// can void its older process. Other addresses of the same process are taken
// for one that has not answered: it may have found a relay meanwhile.
func (n *Node) intern(h *id.Handle) uint32 {
	if r := n.peers.find(h.GUID); r != 0 {
		p := n.peer(r)
		moved := h.Epoch == p.h.Epoch && !slices.Equal(h.Addrs, p.h.Addrs)
		switch {
		case h.Epoch <= p.h.Epoch && !moved:
		case p.flags&fVerified == 0:
			n.setHandle(r, h)
		case !moved || p.flags&(fFailed|fLeft) == fFailed && p.work().claimed == nil:
			p.begin().claimed = h
		}
		return r
	}
	if n.cfg.GUIDOf != nil && n.cfg.GUIDOf(h.Key) != h.GUID {
		n.count("pastry.badhandle", h.GUID)
		return 0
	}
	if n.peers.index.Len() >= maxPeers {
		n.count("pastry.crowded", h.GUID)
		return 0
	}
	return n.peers.add(h)
}

// setHandle replaces r's handle.
func (n *Node) setHandle(r uint32, h *id.Handle) {
	n.peer(r).h = h
	for s := range n.nb {
		if n.nb[s] == r {
			n.nbHandle[s] = h
		}
	}
}

// handle is where to send to: the newest handle told of.
func (p *peer) handle() *id.Handle {
	if c := p.work().claimed; c != nil && p.flags&fFailed != 0 {
		return c
	}
	return p.h
}

// hear takes note that a message of h came directly from it, and returns its
// reference; 0 if the message must be ignored.
func (n *Node) hear(h *id.Handle) uint32 {
	r := n.peers.find(h.GUID)
	if r == 0 {
		if h.GUID == n.me {
			n.trace("pastry.twin", h.GUID, id.GUID{}, int64(h.Epoch), "")
			return 0
		}
		r = n.peers.add(h)
	}
	p := n.peer(r)
	if p.flags&fForgotten != 0 {
		return 0
	}
	if h != p.h {
		switch {
		case h.Epoch < p.h.Epoch && p.flags&fVerified != 0:
			n.count("pastry.stale", h.GUID)
			return 0
		case h.Epoch > p.h.Epoch && p.flags&fVerified != 0:
			n.rebooted(r, h)
		default:
			n.setHandle(r, h) // same epoch: addresses may have changed
		}
	}
	p.flags |= fVerified
	p.heard, p.heardSec, p.rounds = n.now, seconds(n.wall/1000), 0
	w := p.work()
	if w.claimed != nil && w.claimed.Epoch <= h.Epoch {
		p.at.claimed = nil
		p.rest()
	}
	if p.flags&(fSuspect|fFailed) != 0 || w.proof != nil {
		n.cleared(r)
	}
	return r
}

// rebooted replaces r's handle by that of its newer process: the older one is
// dead, and with it its leases and its place in our tables.
func (n *Node) rebooted(r uint32, h *id.Handle) {
	p := n.peer(r)
	n.trace("pastry.reboot", h.GUID, id.GUID{}, int64(h.Epoch), "")
	n.ledger.Rebooted(h.GUID, h.Epoch)
	n.dropEverywhere(r)
	n.setHandle(r, h)
	p.flags &^= fReady | fFailed | fLeft
	if p.at != nil {
		p.at.link = nil
		p.rest()
	}
	p.asked = 0
}

// dropEverywhere takes r out of the leaf set and the routing table.
func (n *Node) dropEverywhere(r uint32) {
	n.table.remove(r, n)
	n.removeLeaf(r)
}

// resolve finds a known node by its ref.
func (n *Node) resolve(f Ref) (r uint32, known bool) {
	r, matches := n.peers.index.FindPrefix(f.Prefix, &n.peers)
	return r, matches == 1
}

// sweep forgets peers that nothing holds: beyond the Remembered most recently
// heard and the Failed most recently evicted.
func (n *Node) sweep() {
	if n.state != Ready {
		return // a joiner holds on to all it has met
	}
	type old struct {
		r  uint32
		at machine.Time
	}
	var buf [2][128]old // what is found seldom is more
	live, failed := buf[0][:0], buf[1][:0]
	for r := range n.peers.end() {
		p := n.peer(r)
		w := p.work()
		if p.h == nil || p.pins > 0 || w.proof != nil || w.ask != nil || w.ping != nil ||
			p.flags&(fLeaf|fTable|fQueued|fForgotten|fAgain) != 0 {
			continue
		}
		switch {
		case p.flags&(fFailed|fLeft) != 0 && n.now.Sub(p.failedAt) < n.cfg.FailedFor:
			failed = append(failed, old{r, p.failedAt})
		case p.flags&(fFailed|fLeft) != 0:
			n.peers.remove(r)
		case p.flags&fVerified != 0 && n.now.Sub(p.heard) < n.cfg.RememberFor || n.keep(p):
			live = append(live, old{r, p.heard})
		default:
			n.peers.remove(r)
		}
	}
	cut := func(list []old, limit int) {
		if len(list) <= limit {
			return
		}
		slices.SortFunc(list, func(a, b old) int {
			if c := cmp.Compare(b.at, a.at); c != 0 {
				return c
			}
			return cmp.Compare(a.r, b.r)
		})
		for _, o := range list[limit:] {
			n.peers.remove(o.r)
		}
	}
	cut(live, n.cfg.Remembered)
	cut(failed, n.cfg.Failed)
	n.peers.fit()
}

// seconds is a wall clock's time as peers keep it.
func seconds(s int64) uint32 { return uint32(min(max(s, 0), math.MaxUint32)) }

// keep holds on to peers named at the start (seeds, the saved table) that were
// never heard in this life, as long as this node has no leaves.
func (n *Node) keep(p *peer) bool { return p.heardSec != 0 || n.leaf.Len() == 0 }
