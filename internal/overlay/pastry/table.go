package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
)

const columns = 1 << id.DigitBits

// slot is R[p,d]: the node of least RTT found so far, and a backup link.
type slot struct{ primary, backup uint32 }

// row holds the nodes that share exactly as many digits with this node as the
// row's index, by their next digit.
type row struct {
	slots [columns]slot
	asked machine.Time // lazy repair: last RowReq about this row
}

// table is R. Rows exist as far as they were ever filled.
type table struct {
	me   id.GUID
	rows []*row
}

func (t *table) at(p, d int) slot {
	if p >= len(t.rows) || t.rows[p] == nil {
		return slot{}
	}
	return t.rows[p].slots[d]
}

func (t *table) row(p int) *row {
	for len(t.rows) <= p {
		t.rows = append(t.rows, nil)
	}
	if t.rows[p] == nil {
		t.rows[p] = &row{}
	}
	return t.rows[p]
}

// offer considers the ready, verified peer r for its slot. A candidate takes
// the place of a primary if it is nearer by a tenth or more (10-overlay §3.7).
func (t *table) offer(r uint32, n *Node) {
	p := n.peer(r)
	if p.flags&fTable != 0 {
		return
	}
	at := id.CommonDigits(t.me, p.h.GUID)
	if at >= id.Digits {
		return
	}
	s := &t.row(at).slots[p.h.GUID.Digit(at)]
	var out uint32
	switch {
	case s.primary == 0:
		s.primary = r
	case t.nearer(n, r, s.primary):
		s.primary, s.backup, out = r, s.primary, s.backup
	case s.backup == 0:
		s.backup = r
	case t.nearer(n, r, s.backup) || n.peer(s.backup).flags&fSuspect != 0:
		out, s.backup = s.backup, r
	default:
		return
	}
	p.flags |= fTable
	if out != 0 {
		n.peer(out).flags &^= fTable
	}
	n.changed = true
}

func (t *table) nearer(n *Node, a, b uint32) bool {
	x, y := n.peer(a).rtt, n.peer(b).rtt
	return x.Known() && y.Known() && x.Smoothed() <= y.Smoothed().Scale(9, 10)
}

// wants reports whether a node g would find room without being measured: its
// slot lacks a primary or a backup.
func (t *table) wants(g id.GUID) bool {
	p := id.CommonDigits(t.me, g)
	if p >= id.Digits {
		return false
	}
	return t.at(p, g.Digit(p)).backup == 0
}

// remove takes r out; the backup link moves up.
func (t *table) remove(r uint32, n *Node) {
	p := n.peer(r)
	if p.flags&fTable == 0 {
		return
	}
	p.flags &^= fTable
	at := id.CommonDigits(t.me, p.h.GUID)
	s := &t.rows[at].slots[p.h.GUID.Digit(at)]
	if s.primary == r {
		s.primary = s.backup
	}
	s.backup = 0
	n.changed = true
}

// each calls f for all entries, primaries and backups, row by row.
func (t *table) each(f func(r uint32)) {
	for _, row := range t.rows {
		if row == nil {
			continue
		}
		for i := range row.slots {
			if r := row.slots[i].primary; r != 0 {
				f(r)
			}
			if r := row.slots[i].backup; r != 0 {
				f(r)
			}
		}
	}
}
