package node

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/p2p"
)

// View is what a node knows of itself and the pool at one moment.
type View struct {
	Self     roster.Info
	Handle   *id.Handle
	State    string // joining, ready, leaving, left
	Members  int    // counted by the roster
	Admins   int
	Roster   []roster.Info
	RTT      map[id.GUID]machine.Duration
	Near     map[id.GUID]bool // in the leaf set or routing table: the overlay takes them to live
	Estimate int64            // nodes in the overlay, by the density of the leaf set
	DHT      dht.Stats
	CertEnds int64 // Unix ms

	Offenders []stack.Offender // of whom something was refused in the last hour
}

// View looks at the machine between two Steps.
func (n *Node) View() (View, error) {
	var v View
	err := n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		ring, members := n.stack.Ring(), n.stack.Roster()
		v = View{
			Handle: ring.Self(), State: ring.State().String(), Members: members.Count(), Admins: members.Admins(),
			Roster: members.List(), RTT: make(map[id.GUID]machine.Duration), Near: make(map[id.GUID]bool), Estimate: ring.Estimate(),
			DHT: n.stack.DHT().Stats(), CertEnds: n.chain().NotAfter(),
			Offenders: n.stack.Offenders(now),
		}
		v.Self, _ = members.Info(n.GUID())
		for _, m := range v.Roster {
			v.RTT[m.GUID] = ring.RTT(m.GUID)
			v.Near[m.GUID] = ring.Lookup(m.GUID) != nil
		}
		return out
	})
	return v, err
}

// Member finds a node in the roster.
func (v *View) Member(g id.GUID) (roster.Info, bool) {
	for _, m := range v.Roster {
		if m.GUID == g {
			return m, true
		}
	}
	return roster.Info{}, false
}

// NameOf is a member's name, or the first digits of its GUID.
func (v *View) NameOf(g id.GUID) string {
	if m, ok := v.Member(g); ok && m.Cert != nil && m.Cert.Name != "" {
		return m.Cert.Name
	}
	return g.Short()
}

// Called is NameOf for a sentence: with the first digits of the GUID where more than
// one member has the name.
func (v *View) Called(g id.GUID) string {
	name, same := v.NameOf(g), 0
	for _, m := range v.Roster {
		if m.Cert != nil && m.Cert.Name == name {
			same++
		}
	}
	if same > 1 {
		name += " (" + g.Short() + ")"
	}
	return name
}

// Addr is the first address of a member, as people read it.
func (v *View) Addr(g id.GUID) string {
	if m, ok := v.Member(g); ok && m.Handle != nil && len(m.Handle.Addrs) > 0 {
		return p2p.FormatAddr(m.Handle.Addrs[0])
	}
	return ""
}

// Table is the routing state of a node.
type Table struct {
	Rows        [][]*id.Handle // 16 a row; self in its own cells
	Left, Right []*id.Handle   // leaf set, nearest first
	Near        []*id.Handle   // nearest by round-trip time
	RTT         map[id.GUID]machine.Duration
}

// Table copies the routing state.
func (n *Node) Table() (Table, error) {
	t := Table{RTT: make(map[id.GUID]machine.Duration)}
	err := n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		ring := n.stack.Ring()
		for row, cells := range ring.Table() {
			hs := make([]*id.Handle, len(cells))
			for col := range cells {
				if hs[col] = cells[col].Primary; col == n.self.GUID.Digit(row) {
					hs[col] = ring.Self()
				}
			}
			t.Rows = append(t.Rows, hs)
		}
		t.Left, t.Right = ring.LeafSet()
		for _, list := range append(t.Rows[:len(t.Rows):len(t.Rows)], t.Left, t.Right) {
			for _, h := range list {
				if h != nil {
					t.RTT[h.GUID] = ring.RTT(h.GUID)
				}
			}
		}
		return out
	})
	t.Near = nearest(t.RTT, n.self.GUID, append(t.Rows[:len(t.Rows):len(t.Rows)], t.Left, t.Right))
	return t, err
}

// neighbourhood is the size of M, the neighbourhood set.
const neighbourhood = 32

// nearest are the known nodes with the least round-trip times: the
// neighbourhood set M, which is derived (10-overlay §3.1).
func nearest(rtt map[id.GUID]machine.Duration, self id.GUID, lists [][]*id.Handle) []*id.Handle {
	seen := map[id.GUID]bool{self: true}
	var m []*id.Handle
	for _, list := range lists {
		for _, h := range list {
			if h != nil && !seen[h.GUID] && rtt[h.GUID] > 0 {
				seen[h.GUID] = true
				m = append(m, h)
			}
		}
	}
	slices.SortFunc(m, func(a, b *id.Handle) int {
		return cmp.Or(cmp.Compare(rtt[a.GUID], rtt[b.GUID]), a.GUID.Cmp(b.GUID))
	})
	return m[:min(len(m), neighbourhood)]
}

// Dir is the node's folder.
func (n *Node) Dir() string { return n.home.dir }

// Pool is the record of the node's pool.
func (n *Node) Pool() *ident.Pool { return n.who.pool }

// Secret is what this member's block keys are derived from.
func (n *Node) Secret() [32]byte { return n.who.secret }

// Owner signs as this member does.
func (n *Node) Owner() ident.Key { return n.who.owner }

// Usage is what the node's store holds.
func (n *Node) Usage() store.Usage { return n.st.Usage() }

// Links are the live connections.
func (n *Node) Links() []transport.Link { return n.tr.Links() }

// Heard is what the live connections tell of their far ends: the version of the
// program, and the best round trip of a handshake.
func (n *Node) Heard() (versions map[id.GUID]string, rtt map[id.GUID]time.Duration) {
	versions, rtt = make(map[id.GUID]string), make(map[id.GUID]time.Duration)
	for _, l := range n.tr.Links() {
		if v, ok := strings.CutPrefix(l.Agent, agentName+"/"); ok {
			versions[l.Peer] = v
		}
		if was, ok := rtt[l.Peer]; l.RTT > 0 && (!ok || l.RTT < was) {
			rtt[l.Peer] = l.RTT
		}
	}
	return versions, rtt
}

// Network counts what the transport did.
func (n *Node) Network() p2p.Stats { return n.tr.Stats() }

// Dropped counts what was dropped since the start, by what: frames and handshakes
// that were refused, sends that a full queue refused, and trace events that an
// observer was too slow for.
func (n *Node) Dropped() map[string]int64 {
	return map[string]int64{
		"bad_frame": n.link.badFrames.Load(), "bad_hello": n.link.badHellos.Load(),
		"send_queue_full": n.sendDrops.Load(), "trace_event": n.observers.drops.Load(),
	}
}

// Damage counts the records that had lost their block file when the store was
// opened, and its own reads that met damaged tables since.
func (n *Node) Damage() (missingFiles int, badTables int64) { return n.st.Damage() }
