package pastry

import (
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// Owns reports whether kind is one of this package's.
func Owns(kind uint8) bool { return kind >= kindHop && kind <= kindRtt }

// Decode reads one message of this package. What it accepts encodes to the
// same bytes again. The message may alias frame.
func Decode(frame []byte) (machine.Message, error) {
	r := wire.NewReader(frame)
	kind, version := r.U8(), r.U8()
	if r.Err() == nil && (version != machine.Version || !Owns(kind)) {
		return nil, fmt.Errorf("pastry: kind %d version %d: %w", kind, version, wire.ErrVersion)
	}
	m := decodeBody(kind, r)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("pastry: kind %d: %w", kind, err)
	}
	return m, nil
}

func decodeBody(kind uint8, r *wire.Reader) machine.Message {
	switch kind {
	case kindHop:
		return &Hop{ID: r.U32(), M: readMessage(r)}
	case kindHopAck:
		return &HopAck{IDs: readIDs(r), Onward: readIDs(r), Busy: r.Bool()}
	case kindProbe:
		return &Probe{Nonce: r.U64(), Coord: r.Bytes8(maxCoord)}
	case kindProbeAck:
		return &ProbeAck{Nonce: r.U64(), Held: machine.Duration(r.U32()), Ready: r.Bool(), Coord: r.Bytes8(maxCoord)}
	case kindPingReq:
		return &PingReq{Target: r.Handle(), Nonce: r.U64()}
	case kindPingRep:
		return &PingRep{Nonce: r.U64(), OK: r.Bool()}
	case kindBeat:
		return &Beat{readBeat(r)}
	case kindBeatAck:
		return &BeatAck{readBeat(r)}
	case kindJoin:
		return readJoin(r)
	case kindAdmitReq:
		return &AdmitReq{X: r.Handle(), Lock: r.U64()}
	case kindAdmitRep:
		return &AdmitRep{Lock: r.U64(), OK: r.Bool(), Left: readRefs(r, maxSide), Right: readRefs(r, maxSide)}
	case kindJoinReply:
		m := &JoinReply{Nonce: r.U64(), Lock: r.U64()}
		if r.Bool() {
			m.S = r.Handle()
		}
		m.L = readHandles(r, 2*maxSide)
		m.Rows = readRows(r)
		return m
	case kindJoinBusy:
		return &JoinBusy{
			Nonce: r.U64(), Retry: readMillis(r), Ready: r.Bool(),
			Left: readRefs(r, maxSide), Right: readRefs(r, maxSide),
		}
	case kindJoined:
		return &Joined{Lock: r.U64(), BeatBody: readBeat(r)}
	case kindJoinedAck:
		return &JoinedAck{Lock: r.U64(), OK: r.Bool(), BeatBody: readBeat(r)}
	case kindLSProbe:
		return &LSProbe{
			Reply: r.Bool(), Ready: r.Bool(),
			Left: readRefs(r, maxSide), Right: readRefs(r, maxSide), Failed: readRefs(r, maxFailed),
		}
	case kindRowReq:
		return &RowReq{P: readRowIndex(r)}
	case kindRowRep:
		m := &RowRep{P: readRowIndex(r)}
		n := r.Count(maxRow, 13)
		m.Entries = make([]RowEntry, n)
		for i := range m.Entries {
			m.Entries[i] = RowEntry{Ref: readRef(r), Coord: r.Bytes8(maxCoord)}
		}
		return m
	case kindHandlesReq:
		return &HandlesReq{Refs: readRefs(r, maxHandles)}
	case kindHandles:
		return &Handles{Handles: readHandles(r, maxHandles)}
	case kindEvents:
		m := &Events{}
		n := r.Count(maxEvents, 14)
		m.Events = make([]MemberEvent, n)
		for i := range m.Events {
			m.Events[i] = MemberEvent{Ref: readRef(r), Joined: r.Bool(), TTL: r.U8()}
		}
		return m
	case kindLeave:
		return &Leave{Left: readRefs(r, maxSide), Right: readRefs(r, maxSide)}
	case kindRtt:
		return &Rtt{RTT: machine.Duration(r.U32())}
	}
	r.Fail(wire.ErrVersion)
	return nil
}

func (m *Hop) AppendBody(w *wire.Writer) {
	w.U32(m.ID)
	appendMessage(w, &m.M)
}

func (m *HopAck) AppendBody(w *wire.Writer) {
	appendIDs(w, m.IDs)
	appendIDs(w, m.Onward)
	w.Bool(m.Busy)
}

func (m *Probe) AppendBody(w *wire.Writer) {
	w.U64(m.Nonce)
	w.Bytes8(m.Coord)
}

func (m *ProbeAck) AppendBody(w *wire.Writer) {
	w.U64(m.Nonce)
	w.U32(micros(m.Held))
	w.Bool(m.Ready)
	w.Bytes8(m.Coord)
}

func (m *PingReq) AppendBody(w *wire.Writer) {
	w.Handle(m.Target)
	w.U64(m.Nonce)
}

func (m *PingRep) AppendBody(w *wire.Writer) {
	w.U64(m.Nonce)
	w.Bool(m.OK)
}

func (m *Beat) AppendBody(w *wire.Writer)    { m.append(w) }
func (m *BeatAck) AppendBody(w *wire.Writer) { m.append(w) }

func (m *Join) AppendBody(w *wire.Writer) {
	w.Handle(m.X)
	w.U64(m.Nonce)
	w.Bool(m.Look)
	w.U8(m.Passes)
	appendRows(w, m.Rows)
}

func (m *AdmitReq) AppendBody(w *wire.Writer) {
	w.Handle(m.X)
	w.U64(m.Lock)
}

func (m *AdmitRep) AppendBody(w *wire.Writer) {
	w.U64(m.Lock)
	w.Bool(m.OK)
	appendRefs(w, m.Left)
	appendRefs(w, m.Right)
}

func (m *JoinReply) AppendBody(w *wire.Writer) {
	w.U64(m.Nonce)
	w.U64(m.Lock)
	w.Bool(m.S != nil)
	if m.S != nil {
		w.Handle(m.S)
	}
	appendHandles(w, m.L)
	appendRows(w, m.Rows)
}

func (m *JoinBusy) AppendBody(w *wire.Writer) {
	w.U64(m.Nonce)
	w.U32(millis(m.Retry))
	w.Bool(m.Ready)
	appendRefs(w, m.Left)
	appendRefs(w, m.Right)
}

func (m *Joined) AppendBody(w *wire.Writer) {
	w.U64(m.Lock)
	m.append(w)
}

func (m *JoinedAck) AppendBody(w *wire.Writer) {
	w.U64(m.Lock)
	w.Bool(m.OK)
	m.append(w)
}

func (m *LSProbe) AppendBody(w *wire.Writer) {
	w.Bool(m.Reply)
	w.Bool(m.Ready)
	appendRefs(w, m.Left)
	appendRefs(w, m.Right)
	appendRefs(w, m.Failed)
}

func (m *RowReq) AppendBody(w *wire.Writer) { w.U8(m.P) }

func (m *RowRep) AppendBody(w *wire.Writer) {
	w.U8(m.P)
	w.Count(len(m.Entries))
	for _, e := range m.Entries {
		appendRef(w, e.Ref)
		w.Bytes8(e.Coord)
	}
}

func (m *HandlesReq) AppendBody(w *wire.Writer) { appendRefs(w, m.Refs) }
func (m *Handles) AppendBody(w *wire.Writer)    { appendHandles(w, m.Handles) }

func (m *Events) AppendBody(w *wire.Writer) {
	w.Count(len(m.Events))
	for _, e := range m.Events {
		appendRef(w, e.Ref)
		w.Bool(e.Joined)
		w.U8(e.TTL)
	}
}

func (m *Leave) AppendBody(w *wire.Writer) {
	appendRefs(w, m.Left)
	appendRefs(w, m.Right)
}

func (m *Rtt) AppendBody(w *wire.Writer) { w.U32(micros(m.RTT)) }

// appendMessage writes a KBR message:
//
//	key 32 · app u16 · reqID 16 · class u8 · replyMode u8 (0) · origin? u8 [handle]
//	deadline u32 ms · hops u8 · level u8 (0) · flags u8 · [bestDist 32] · body u32+n
func appendMessage(w *wire.Writer, m *kbr.Message) {
	w.GUID(m.Key)
	w.U16(m.App)
	w.Fixed(m.ReqID[:])
	w.U8(uint8(m.Class))
	w.U8(0)
	w.Bool(m.Origin != nil)
	if m.Origin != nil {
		w.Handle(m.Origin)
	}
	w.U32(millis(m.Deadline))
	w.U8(m.Hops)
	w.U8(0)
	w.U8(m.Flags)
	if m.Flags&kbr.FlagLeaf != 0 {
		w.GUID(m.BestDist)
	}
	w.Bytes32(m.Body)
}

func readMessage(r *wire.Reader) kbr.Message {
	m := kbr.Message{Key: r.GUID(), App: r.U16()}
	r.Into(m.ReqID[:])
	m.Class = kbr.Class(r.U8())
	if m.Class > kbr.Control || r.U8() != 0 {
		r.Fail(wire.ErrValue) // reverse path is refused until it exists
	}
	if r.Bool() {
		m.Origin = r.Handle()
	}
	m.Deadline = readMillis(r)
	m.Hops = r.U8()
	if r.U8() != 0 {
		r.Fail(wire.ErrValue)
	}
	m.Flags = r.U8()
	if m.Flags&^kbr.FlagLeaf != 0 {
		r.Fail(wire.ErrValue) // hedge, redundant and safe likewise
	}
	if m.Flags&kbr.FlagLeaf != 0 {
		m.BestDist = r.GUID()
	}
	m.Body = r.Bytes32(maxBody)
	return m
}

func (b *BeatBody) append(w *wire.Writer) {
	w.U64(b.Nonce)
	w.U64(b.Echo)
	w.U32(micros(b.Hold))
	w.U32(millis(b.Grant))
	w.U32(b.Seq)
	w.U32(b.Back)
	w.U8(b.Flags)
	w.U32(b.Trt)
}

func readBeat(r *wire.Reader) BeatBody {
	b := BeatBody{
		Nonce: r.U64(), Echo: r.U64(), Hold: machine.Duration(r.U32()),
		Grant: readMillis(r), Seq: r.U32(), Back: r.U32(), Flags: r.U8(), Trt: r.U32(),
	}
	if b.Flags&^beatFlags != 0 {
		r.Fail(wire.ErrValue)
	}
	return b
}

func readJoin(r *wire.Reader) *Join {
	return &Join{X: r.Handle(), Nonce: r.U64(), Look: r.Bool(), Passes: r.U8(), Rows: readRows(r)}
}

func appendRef(w *wire.Writer, f Ref) {
	w.U64(f.Prefix)
	w.U32(f.Epoch)
}

func readRef(r *wire.Reader) Ref { return Ref{Prefix: r.U64(), Epoch: r.U32()} }

func appendRefs(w *wire.Writer, refs []Ref) {
	w.Count(len(refs))
	for _, f := range refs {
		appendRef(w, f)
	}
}

func readRefs(r *wire.Reader, limit int) []Ref {
	n := r.Count(limit, 12)
	refs := make([]Ref, n)
	for i := range refs {
		refs[i] = readRef(r)
	}
	return refs
}

func appendIDs(w *wire.Writer, ids []uint32) {
	w.Count(len(ids))
	for _, v := range ids {
		w.U32(v)
	}
}

func readIDs(r *wire.Reader) []uint32 {
	n := r.Count(maxAcks, 4)
	ids := make([]uint32, n)
	for i := range ids {
		ids[i] = r.U32()
	}
	return ids
}

func appendHandles(w *wire.Writer, hs []*id.Handle) {
	w.Count(len(hs))
	for _, h := range hs {
		w.Handle(h)
	}
}

func readHandles(r *wire.Reader, limit int) []*id.Handle {
	n := r.Count(limit, wire.MinHandle)
	hs := make([]*id.Handle, n)
	for i := range hs {
		hs[i] = r.Handle()
	}
	return hs
}

func appendRows(w *wire.Writer, rows []Row) {
	w.Count(len(rows))
	for _, row := range rows {
		w.U8(row.Index)
		appendHandles(w, row.Handles)
	}
}

func readRows(r *wire.Reader) []Row {
	before := r.Len()
	n := r.Count(id.Digits, 3)
	rows := make([]Row, n)
	for i := range rows {
		rows[i] = Row{Index: readRowIndex(r), Handles: readHandles(r, maxHandles)}
		if i > 0 && rows[i].Index <= rows[i-1].Index {
			r.Fail(wire.ErrValue)
		}
	}
	if before-r.Len() > maxJoinRows {
		r.Fail(wire.ErrBound)
	}
	return rows
}

func readRowIndex(r *wire.Reader) uint8 {
	p := r.U8()
	if int(p) >= id.Digits {
		r.Fail(wire.ErrBound)
	}
	return p
}

// millis rounds down, so that a deadline never grows on its way.
func millis(d machine.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), 1<<32-1))
}

func readMillis(r *wire.Reader) machine.Duration {
	return machine.Duration(r.U32()) * machine.Millisecond
}

func micros(d machine.Duration) uint32 { return uint32(min(max(d, 0), 1<<32-1)) }
