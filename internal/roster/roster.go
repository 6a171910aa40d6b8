package roster

import (
	"bytes"
	"fmt"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/trace"
)

// Bounds of a roster, ours.
const (
	MaxNodes  = 16_384 // ever admitted
	maxCerts  = 8      // of one node by one issuer, the newest: four years of renewals
	maxVerbal = 4      // revocations of one node by one admin
	maxByRoot = 64     // and by the root key
	maxBans   = MaxNodes
)

// settling is how long after its start a node may still be hearing of members
// that all others know.
const settling = machine.Minute

// Roster is the set of entries, and the machine that keeps it equal to those of
// the other members. One goroutine owns it.
type Roster struct {
	pool   *ident.Pool
	poolID ident.PoolID

	nodes map[id.GUID]*node
	bans  int                // revocations by admins
	byTag map[Tag]*held      // what is in the set
	by    map[[32]byte][]Tag // certificates and revocations by the admin who signed

	loading bool
	version uint64
	view    *view // nil: to be made anew
	sums    buckets
	lost    []id.GUID     // members revoked since TakeRevoked
	events  []trace.Event // to be emitted at the next Step

	exchange
}

// node is what the set says of one key.
type node struct {
	key    [32]byte
	certs  []*held // newest first
	bans   []*held
	state  *held        // newest word; in the set only while there is a certificate
	seen   *id.Handle   // from a handshake, if newer
	heard  machine.Time // when its first certificate came in; 0: as this node started
	counts bool         // as of the last change
	barred bool         // likewise: revoked, or all its certificates disavowed
}

// held is an entry in the set.
type held struct {
	*Entry
	tag   Tag
	bytes []byte
}

// New makes an empty roster of a pool.
func New(cfg Config, p *ident.Pool) *Roster {
	r := &Roster{
		pool: p, poolID: p.ID(), nodes: make(map[id.GUID]*node),
		byTag: make(map[Tag]*held), by: make(map[[32]byte][]Tag),
	}
	r.exchange.init(cfg)
	r.started = machine.Never
	return r
}

// Pool is the pool's record.
func (r *Roster) Pool() *ident.Pool { return r.pool }

// Version grows with every change: the host keeps Encode when it has grown.
func (r *Roster) Version() uint64 { return r.version }

// Len is the number of entries.
func (r *Roster) Len() int { return len(r.byTag) }

// Add verifies an entry and puts it into the set. changed is false if the set
// holds it already or holds a newer one. The entry is passed on to the
// neighbours at the next Tick, which is due at once.
func (r *Roster) Add(entry []byte) (changed bool, err error) {
	changed, err = r.add(entry, id.GUID{})
	if changed {
		r.pushSoon(r.lastNow)
	}
	return changed, err
}

// Load adds entries from the disk or a join answer, which need not be passed on,
// whatever their order. It returns the number of changes and the first error;
// entries after a bad one are loaded all the same.
func (r *Roster) Load(entries [][]byte) (changes int, err error) {
	kept, flood, told := len(r.freshly), r.flood, len(r.events)
	r.loading = true
	defer func() { r.loading = false }()
	changes, err = r.addAll(entries, id.GUID{})
	r.freshly, r.flood, r.events = r.freshly[:kept], flood, r.events[:told]
	return changes, err
}

// addAll adds entries that came together, in the order that loses none: who is
// thrown out, who was taken in, who says what.
func (r *Roster) addAll(entries [][]byte, from id.GUID) (changes int, first error) {
	for round := range 3 {
		for _, b := range entries {
			if rankOf(b) != round {
				continue
			}
			changed, err := r.add(b, from)
			if err != nil && first == nil {
				first = err
			}
			if changed {
				changes++
			}
		}
	}
	return changes, first
}

func (r *Roster) add(entry []byte, from id.GUID) (bool, error) {
	tag := TagOf(entry)
	if r.byTag[tag] != nil {
		return false, nil
	}
	e, err := Parse(entry)
	if err != nil {
		return false, err
	}
	key := e.Node()
	g := ident.GUIDOf(key)
	n := r.nodes[g]
	// Cheap refusals come before signatures are checked.
	if e.State != nil && n == nil {
		return false, fmt.Errorf("%w: %s has no certificate", ErrUnknown, g.Short())
	}
	if e.State != nil && n.state != nil && !e.State.after(n.state.State) {
		return false, nil
	}
	if err := r.standing(e, entry); err != nil {
		return false, err
	}
	if err := e.verify(r.pool, r.poolID); err != nil {
		return false, err
	}
	if n == nil {
		if _, byAdmin := e.issuer(); len(r.nodes) >= MaxNodes && byAdmin {
			return false, fmt.Errorf("%w: %d nodes", ErrFull, len(r.nodes))
		}
		n = &node{key: key}
		if !r.loading && r.lastNow.Sub(r.started) >= settling {
			n.heard = r.lastNow
		}
	}
	// A copy: the entry may be part of a long frame.
	x := &held{Entry: e, tag: tag, bytes: bytes.Clone(entry)}
	switch {
	case e.Chain != nil:
		err = r.addCert(n, x)
	case e.Revoked != nil:
		err = r.addBan(n, x)
	default:
		r.addState(n, x)
	}
	if err != nil {
		return false, err
	}
	r.nodes[g] = n
	r.changed()
	r.judge(g, n)
	if e.Revoked != nil && e.Revoked.Chain == nil {
		r.disavow(n)
	}
	r.fresh(x, from)
	return true, nil
}

// standing refuses the entries of an admin who was revoked without listing them.
func (r *Roster) standing(e *Entry, entry []byte) error {
	if x := r.disavowal(e, entry); x != nil {
		return fmt.Errorf("%w was revoked before it was seen (%s)", ErrDisavowed, ident.GUIDOf(x.Revoked.Node).Short())
	}
	return nil
}

// disavowal is the revocation of the admin who signed an entry, if it does not
// list the entry.
func (r *Roster) disavowal(e *Entry, entry []byte) *held {
	by, ok := e.issuer()
	if !ok {
		return nil
	}
	admin := r.nodes[ident.GUIDOf(by)]
	if admin == nil {
		return nil
	}
	for _, b := range admin.bans {
		if !b.Revoked.stands(entry) {
			return b
		}
	}
	return nil
}

// stands reports whether a revocation lets an entry of its admin stand. That of
// an admin by an admin has no effect.
func (v *Revoked) stands(entry []byte) bool {
	if v.Chain != nil {
		return true
	}
	_, ok := slices.BinarySearchFunc(v.Keep, v.keepTag(entry), func(a, b Tag) int { return bytes.Compare(a[:], b[:]) })
	return ok
}

// disavow takes out what the admin n signed and its revocations do not list.
func (r *Roster) disavow(n *node) {
	for _, tag := range slices.Clone(r.by[n.key]) {
		x := r.byTag[tag]
		if x == nil || r.standing(x.Entry, x.bytes) == nil {
			continue
		}
		key := x.Node()
		g := ident.GUIDOf(key)
		m := r.nodes[g]
		r.remove(x)
		same := func(y *held) bool { return y == x }
		if x.Revoked != nil {
			m.bans = slices.DeleteFunc(m.bans, same)
			r.bans--
		} else {
			m.certs = slices.DeleteFunc(m.certs, same)
			if len(m.certs) == 0 && m.state != nil {
				r.remove(m.state)
			}
		}
		r.changed()
		r.judge(g, m)
		if len(m.certs) == 0 && len(m.bans) == 0 && m.state == nil {
			delete(r.nodes, g)
		}
	}
}

func (r *Roster) addCert(n *node, x *held) error {
	of := func(y *held) bool { return y.Chain.Leaf().Issuer == x.Chain.Leaf().Issuer }
	var oldest *held
	count := 0
	for _, y := range n.certs {
		if of(y) {
			oldest = y // newest first
			count++
		}
	}
	if count >= maxCerts {
		if cmpCerts(x, oldest) > 0 {
			return fmt.Errorf("%w: newer certificates of %s are known", ErrFull, ident.GUIDOf(n.key).Short())
		}
		r.remove(oldest)
		n.certs = slices.DeleteFunc(n.certs, func(y *held) bool { return y == oldest })
	}
	at, _ := slices.BinarySearchFunc(n.certs, x, cmpCerts)
	n.certs = slices.Insert(n.certs, at, x)
	r.put(x)
	if len(n.certs) == 1 && n.state != nil {
		r.put(n.state) // it was kept while the node had no certificate
	}
	return nil
}

// cmpCerts orders certificates newest first.
func cmpCerts(a, b *held) int {
	x, y := a.Chain.Leaf(), b.Chain.Leaf()
	switch {
	case x.NotBefore > y.NotBefore:
		return -1
	case x.NotBefore < y.NotBefore:
		return 1
	}
	return bytes.Compare(a.tag[:], b.tag[:])
}

func (r *Roster) addBan(n *node, x *held) error {
	same := 0
	for _, y := range n.bans {
		if y.Revoked.By == x.Revoked.By {
			same++
		}
	}
	// A rogue admin may have filled the roster: the root key is still heard.
	byAdmin := x.Revoked.Chain != nil
	if same >= maxVerbal && byAdmin || same >= maxByRoot || r.bans >= maxBans && byAdmin {
		return fmt.Errorf("%w: %d revocations", ErrFull, r.bans)
	}
	if byAdmin {
		r.bans++
	}
	n.bans = append(n.bans, x)
	r.put(x)
	return nil
}

func (r *Roster) addState(n *node, x *held) {
	if n.state != nil {
		r.remove(n.state)
	}
	n.state = x
	if len(n.certs) > 0 {
		r.put(x)
	}
}

func (r *Roster) put(x *held) {
	r.byTag[x.tag] = x
	r.sums.add(x.tag)
	if by, ok := x.issuer(); ok {
		r.by[by] = append(r.by[by], x.tag)
	}
}

func (r *Roster) remove(x *held) {
	delete(r.byTag, x.tag)
	r.sums.drop(x.tag)
	if by, ok := x.issuer(); ok {
		r.by[by] = slices.DeleteFunc(r.by[by], func(t Tag) bool { return t == x.tag })
	}
}

func (r *Roster) changed() {
	r.version++
	r.view = nil
}

// judge notes what a change means for a node's membership.
func (r *Roster) judge(g id.GUID, n *node) {
	if barred := n.revoked() || len(n.certs) == 0; barred != n.barred {
		n.barred = barred
		if barred {
			r.lost = append(r.lost, g)
			r.tell("roster.revoked", g, n.name())
		}
	}
	if counts := n.counted(); counts != n.counts {
		n.counts = counts
		switch {
		case counts:
			r.tell("roster.member", g, n.name())
		case n.left():
			r.tell("roster.left", g, n.name())
		}
	}
}

// tell queues an event for the next Step. Past a thousand they are dropped: the
// host learns of the state by asking, events are for people.
func (r *Roster) tell(kind string, peer id.GUID, note string) {
	if len(r.events) < 1024 {
		r.events = append(r.events, trace.Event{Kind: kind, Peer: peer, Note: note})
	}
}

// cert is the node's current certificate, nil if it has none.
func (n *node) cert() *ident.Certificate {
	if len(n.certs) == 0 {
		return nil
	}
	return n.certs[0].Chain.Leaf()
}

func (n *node) name() string {
	if c := n.cert(); c != nil {
		return c.Name
	}
	return ""
}

func (n *node) admin() bool {
	return slices.ContainsFunc(n.certs, func(x *held) bool { return x.Chain.Leaf().Role == ident.Admin })
}

// revoked: by the root key, or by any admin if the node is none itself.
func (n *node) revoked() bool { return n.ban() != nil }

// ban is the first revocation of the node that has effect, nil if none has.
func (n *node) ban() *held {
	admin := n.admin()
	for _, x := range n.bans {
		if x.Revoked.Chain == nil || !admin {
			return x
		}
	}
	return nil
}

func (n *node) left() bool { return n.state != nil && n.state.State.Handle == nil }

// member: certified, not revoked, not gone.
func (n *node) member() bool { return len(n.certs) > 0 && !n.revoked() && !n.left() }

// counted: a member that has been ready.
func (n *node) counted() bool { return n.member() && n.state != nil }
