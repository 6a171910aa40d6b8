package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire"
)

// presence is what a node says of a GUID.
type presence uint8

const (
	absent     presence = iota // not here, and this node would know
	have                       // the bytes (or signed record) are here
	unsynced                   // not here, and this node may not know yet
	pointer                    // not here, but there
	outside                    // not here, and the node is not in the set by its own view
	endOfState                 // first invalid value
)

type getMsg struct {
	req  uint64
	guid id.GUID
}

func (*getMsg) Kind() uint8                 { return kindGet }
func (m *getMsg) AppendBody(w *wire.Writer) { w.U64(m.req); w.GUID(m.guid) }
func (m *getMsg) read(r *wire.Reader)       { m.req = r.U64(); m.guid = r.GUID() }

// blockMsg answers Get. Others are holders (pointer) or the set (outside).
type blockMsg struct {
	req    uint64
	guid   id.GUID
	state  presence
	block  []byte
	others []*id.Handle
	sum    check
}

func (*blockMsg) Kind() uint8 { return kindBlock }

func (m *blockMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.guid)
	w.U8(uint8(m.state))
	w.Bytes32(m.block)
	writeHandles(w, m.others)
}

func (m *blockMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.guid = r.GUID()
	m.state = readPresence(r)
	m.block = readBlock(r)
	m.others = readHandles(r, maxSet)
	if (m.state == have) != (len(m.block) > 0) {
		r.Fail(wire.ErrValue)
	}
	m.sum = checkBlock(m.guid, m.block)
}

func readPresence(r *wire.Reader) presence {
	p := presence(r.U8())
	if p >= endOfState {
		r.Fail(wire.ErrValue)
	}
	return p
}

type headMsg struct {
	req   uint64
	guids []id.GUID
}

func (*headMsg) Kind() uint8                 { return kindHead }
func (m *headMsg) AppendBody(w *wire.Writer) { w.U64(m.req); writeGUIDs(w, m.guids) }
func (m *headMsg) read(r *wire.Reader)       { m.req = r.U64(); m.guids = readGUIDs(r, maxHead) }

// head is one line of a HeadAck, in the order of the question.
type head struct {
	state  presence
	role   Role // of the copy; diverted with state pointer: the copy is elsewhere
	inSet  bool // by the answering node's view
	others uint8
	size   uint32
	seq    uint64
}

const headSize = 1 + 1 + 1 + 1 + 4 + 8

type headAckMsg struct {
	req   uint64
	heads []head
}

func (*headAckMsg) Kind() uint8 { return kindHeadAck }

func (m *headAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Count(len(m.heads))
	for _, h := range m.heads {
		w.U8(uint8(h.state))
		w.U8(uint8(h.role))
		w.Bool(h.inSet)
		w.U8(h.others)
		w.U32(h.size)
		w.U64(h.seq)
	}
}

func (m *headAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	n := r.Count(maxHead, headSize)
	if n == 0 {
		return
	}
	m.heads = make([]head, n)
	for i := range m.heads {
		m.heads[i] = head{readPresence(r), Role(r.U8()), r.Bool(), r.U8(), r.U32(), r.U64()}
		if m.heads[i].role > RoleStandIn {
			r.Fail(wire.ErrValue)
		}
	}
}

type getSignedMsg struct {
	req    uint64
	roster [32]byte
	guid   id.GUID
}

func (*getSignedMsg) Kind() uint8 { return kindGetSigned }

func (m *getSignedMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Fixed(m.roster[:])
	w.GUID(m.guid)
}

func (m *getSignedMsg) read(r *wire.Reader) {
	m.req = r.U64()
	r.Into(m.roster[:])
	m.guid = r.GUID()
}

// signedIsMsg answers GetSigned: have with the record, and with a second one
// of the same seq if the owner has signed two.
type signedIsMsg struct {
	req    uint64
	guid   id.GUID
	state  presence
	quorum bool // synced and in the set by its own view: counts in quorums
	recs   []Signed
}

func (*signedIsMsg) Kind() uint8 { return kindSignedIs }

func (m *signedIsMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.guid)
	w.U8(uint8(m.state))
	w.Bool(m.quorum)
	writeSigned(w, m.recs)
}

func (m *signedIsMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.guid = r.GUID()
	m.state = readPresence(r)
	m.quorum = r.Bool()
	m.recs = readSigned(r, m.guid)
	if (m.state == have) != (len(m.recs) > 0) {
		r.Fail(wire.ErrValue)
	}
}

func writeSigned(w *wire.Writer, ss []Signed) {
	w.U8(uint8(len(ss)))
	for i := range ss {
		ss[i].AppendTo(w)
	}
}

// readSigned reads at most two versions of the signed block g.
func readSigned(r *wire.Reader, g id.GUID) []Signed {
	n := int(r.U8())
	if n > 2 || n*minSigned > r.Len() {
		r.Fail(wire.ErrBound)
		return nil
	}
	if n == 0 {
		return nil
	}
	ss := make([]Signed, n)
	for i := range ss {
		ss[i].read(r)
		if r.Err() == nil && ss[i].GUID() != g {
			r.Fail(wire.ErrValue)
		}
	}
	return ss
}

// surveyMsg asks for a survey, as if the copies of one member (zero: of none)
// were gone.
type surveyMsg struct {
	req     uint64
	without id.GUID
}

func (*surveyMsg) Kind() uint8                 { return kindSurvey }
func (m *surveyMsg) AppendBody(w *wire.Writer) { w.U64(m.req); w.GUID(m.without) }
func (m *surveyMsg) read(r *wire.Reader)       { m.req = r.U64(); m.without = r.GUID() }

type surveyAckMsg struct {
	req uint64
	s   MemberSurvey
}

func (*surveyAckMsg) Kind() uint8 { return kindSurveyAck }

func (m *surveyAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	for _, v := range []int64{
		m.s.Blocks, m.s.Full, m.s.Degraded, m.s.BelowW, m.s.Lost, m.s.RepairQueued, m.s.RepairBytes, m.s.RepairRate,
		m.s.Usage.Limit, m.s.Usage.Used, m.s.Usage.Reserve, m.s.Usage.Free, m.s.Usage.Blocks,
	} {
		w.U64(uint64(v))
	}
	w.Bool(m.s.Unsynced)
}

func (m *surveyAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	v := func() int64 {
		x := r.U64()
		if x > 1<<62 {
			r.Fail(wire.ErrBound)
		}
		return int64(x)
	}
	m.s = MemberSurvey{
		Blocks: v(), Full: v(), Degraded: v(), BelowW: v(), Lost: v(),
		RepairQueued: v(), RepairBytes: v(), RepairRate: v(),
		Usage: store.Usage{Limit: v(), Used: v(), Reserve: v(), Free: v(), Blocks: v()},
	}
	m.s.Unsynced = r.Bool()
}

// challengeMsg asks for BLAKE3(nonce ‖ block): only who has the bytes can say.
type challengeMsg struct {
	req   uint64
	guid  id.GUID
	nonce [16]byte
}

func (*challengeMsg) Kind() uint8 { return kindChallenge }

func (m *challengeMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.guid)
	w.Fixed(m.nonce[:])
}

func (m *challengeMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.guid = r.GUID()
	r.Into(m.nonce[:])
}

type challengeAckMsg struct {
	req   uint64
	state presence
	proof [32]byte
}

func (*challengeAckMsg) Kind() uint8 { return kindChallengeAck }

func (m *challengeAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.U8(uint8(m.state))
	w.Fixed(m.proof[:])
}

func (m *challengeAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.state = readPresence(r)
	r.Into(m.proof[:])
}

// mendMsg asks a holder to bring a block to its whole set at once.
type mendMsg struct {
	req  uint64
	guid id.GUID
}

func (*mendMsg) Kind() uint8                 { return kindMend }
func (m *mendMsg) AppendBody(w *wire.Writer) { w.U64(m.req); w.GUID(m.guid) }
func (m *mendMsg) read(r *wire.Reader)       { m.req = r.U64(); m.guid = r.GUID() }

// mendAckMsg says how many copies there are now.
type mendAckMsg struct {
	req    uint64
	copies uint8
}

func (*mendAckMsg) Kind() uint8                 { return kindMendAck }
func (m *mendAckMsg) AppendBody(w *wire.Writer) { w.U64(m.req); w.U8(m.copies) }
func (m *mendAckMsg) read(r *wire.Reader)       { m.req = r.U64(); m.copies = r.U8() }
