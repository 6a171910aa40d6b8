package pastry

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// appRing is the application number of the overlay's own routed messages:
// Join on its way to the joiner's place, and Beats that take a detour.
const appRing uint16 = 0

// routeRing routes one of the overlay's own messages to key.
func (n *Node) routeRing(key id.GUID, body machine.Message, hint uint32) {
	var w wire.Writer
	machine.AppendMessage(&w, body)
	m := kbr.Message{Key: key, App: appRing, ReqID: n.reqID(), Class: kbr.Control, Body: w.B}
	switch b := body.(type) {
	case *Join:
		m.Origin = b.X
	default:
		m.Origin = n.self
	}
	n.dispatch(m, n.now.Add(n.cfg.JoinWait*2), 0, hint)
}

// forwardRing is the overlay's own Forward: each hop adds the rows of its
// table that the joiner can use and no hop before it could give.
func (n *Node) forwardRing(m *kbr.Message, _ uint32) bool {
	msg, err := Decode(m.Body)
	if err != nil {
		n.count("pastry.badbody", id.GUID{})
		return false
	}
	j, ok := msg.(*Join)
	if !ok || j.Look {
		return true
	}
	rows, size := n.addRows(j)
	if size == 0 {
		return true
	}
	var w wire.Writer
	machine.AppendMessage(&w, &Join{X: j.X, Nonce: j.Nonce, Passes: j.Passes, Rows: rows})
	m.Body = w.B
	return true
}

func (n *Node) addRows(j *Join) (rows []Row, added int) {
	rows = j.Rows
	first, size := 0, 0
	for _, r := range rows {
		first = int(r.Index) + 1
		size += 3
		for _, h := range r.Handles {
			size += handleSize(h)
		}
	}
	shared := id.CommonDigits(n.me, j.X.GUID)
	for p := first; p <= shared && p < id.Digits; p++ {
		row := Row{Index: uint8(p)}
		rowSize := 3
		add := func(h *id.Handle) {
			if h.GUID != j.X.GUID {
				row.Handles = append(row.Handles, h)
				rowSize += handleSize(h)
			}
		}
		if p == shared {
			add(n.self)
		}
		for d := range columns {
			if s := n.table.at(p, d); s.primary != 0 && n.peer(s.primary).flags&fSuspect == 0 {
				add(n.peer(s.primary).h)
			}
		}
		if len(row.Handles) == 0 {
			continue
		}
		if size+rowSize > maxJoinRows-2 {
			break
		}
		size += rowSize
		rows = append(rows[:len(rows):len(rows)], row)
		added++
	}
	return rows, added
}

func handleSize(h *id.Handle) int {
	size := 32 + 32 + 4 + 1
	for _, a := range h.Addrs {
		size += 1 + len(a)
	}
	return size
}

// deliverRing takes one of the overlay's own messages at its root.
func (n *Node) deliverRing(m *kbr.Message) {
	msg, err := Decode(m.Body)
	if err != nil || m.Origin == nil || m.Origin.GUID == n.me {
		return
	}
	switch b := msg.(type) {
	case *Join:
		if b.X.GUID != m.Origin.GUID {
			return
		}
		if x := n.intern(b.X); x != 0 && n.peer(x).flags&fForgotten == 0 {
			n.place(x, b)
		}
	case *Beat:
		n.onRelayedBeat(m.Origin, &b.BeatBody, false)
	case *BeatAck:
		n.onRelayedBeat(m.Origin, &b.BeatBody, true)
	}
}

// onRelayedBeat takes a beat that made a detour. The link it came over does not
// prove its origin, but the echo of a nonce does, to all but the nodes on the
// detour: nonces are random, and the one echoed was sent to the neighbour
// alone, or through them. So a relayed beat gives a lease only while the
// neighbour is silent on the direct link, and returns none.
func (n *Node) onRelayedBeat(from *id.Handle, b *BeatBody, ack bool) {
	r := n.peers.find(from.GUID)
	if r == 0 || r != n.nb[0] && r != n.nb[1] || n.peer(r).h.Epoch != from.Epoch || n.state != Ready {
		return
	}
	given := *b
	given.Flags &^= beatBackLeft | beatBackRight
	if p := n.peer(r); p.flags&fSuspect != 0 {
		p.flags |= fIndirect
	} else {
		given.Grant = 0
	}
	n.takeBeat(r, &given)
	if ack {
		return
	}
	via := n.around(from.GUID, r)
	if len(via) == 0 {
		return
	}
	n.routeRing(from.GUID, &BeatAck{n.beatBody(r, 0)}, via[0])
}
