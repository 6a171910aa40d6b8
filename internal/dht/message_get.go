package dht

import (
	"atoll.example/atoll/internal/id"
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

func (p *presence) field(c wire.Codec) { wire.Enum(c, p, absent, endOfState-1) }

type getMsg struct {
	req  uint64
	guid id.GUID
}

func (*getMsg) Kind() uint8                 { return kindGet }
func (m *getMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *getMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
}

// blockMsg answers Get. Others are holders (pointer) or the set (outside).
type blockMsg struct {
	req    uint64
	guid   id.GUID
	state  presence
	block  []byte
	others []*id.Handle
	sum    check
}

func (*blockMsg) Kind() uint8                 { return kindBlock }
func (m *blockMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *blockMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
	m.state.field(c)
	blockOf(c, m.guid, &m.block, &m.sum)
	handleList(c, &m.others)
	c.Check((m.state == have) == (len(m.block) > 0), wire.ErrValue)
}

type headMsg struct {
	req   uint64
	guids []id.GUID
}

func (*headMsg) Kind() uint8                 { return kindHead }
func (m *headMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *headMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	guidList(c, &m.guids, maxHead)
}

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

func (h *head) fields(c wire.Codec) {
	h.state.field(c)
	wire.Enum(c, &h.role, 0, RoleStandIn)
	c.Bool(&h.inSet)
	c.U8(&h.others)
	c.U32(&h.size)
	c.U64(&h.seq)
}

type headAckMsg struct {
	req   uint64
	heads []head
}

func (*headAckMsg) Kind() uint8                 { return kindHeadAck }
func (m *headAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *headAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	wire.List(c, &m.heads, maxHead, headSize, (*head).fields)
}

type getSignedMsg struct {
	req    uint64
	roster [32]byte
	guid   id.GUID
}

func (*getSignedMsg) Kind() uint8                 { return kindGetSigned }
func (m *getSignedMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *getSignedMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Fixed(m.roster[:])
	c.GUID(&m.guid)
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

func (*signedIsMsg) Kind() uint8                 { return kindSignedIs }
func (m *signedIsMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *signedIsMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
	m.state.field(c)
	c.Bool(&m.quorum)
	versions(c, m.guid, &m.recs)
	c.Check((m.state == have) == (len(m.recs) > 0), wire.ErrValue)
}

// surveyMsg asks for a survey, as if the copies of one member (zero: of none)
// were gone.
type surveyMsg struct {
	req     uint64
	without id.GUID
}

func (*surveyMsg) Kind() uint8                 { return kindSurvey }
func (m *surveyMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *surveyMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.without)
}

type surveyAckMsg struct {
	req uint64
	s   MemberSurvey
}

func (*surveyAckMsg) Kind() uint8                 { return kindSurveyAck }
func (m *surveyAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *surveyAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	s := &m.s
	for _, n := range []*int64{
		&s.Blocks, &s.Full, &s.Degraded, &s.BelowW, &s.Lost, &s.RepairQueued, &s.RepairBytes, &s.RepairRate,
		&s.Usage.Limit, &s.Usage.Used, &s.Usage.Reserve, &s.Usage.Free, &s.Usage.Blocks,
	} {
		v := uint64(*n)
		c.U64(&v)
		c.Check(v <= 1<<62, wire.ErrBound)
		if c.Read() {
			*n = int64(v)
		}
	}
	c.Bool(&s.Unsynced)
}

// challengeMsg asks for BLAKE3(nonce ‖ block): only who has the bytes can say.
type challengeMsg struct {
	req   uint64
	guid  id.GUID
	nonce [16]byte
}

func (*challengeMsg) Kind() uint8                 { return kindChallenge }
func (m *challengeMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *challengeMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
	c.Fixed(m.nonce[:])
}

type challengeAckMsg struct {
	req   uint64
	state presence
	proof [32]byte
}

func (*challengeAckMsg) Kind() uint8                 { return kindChallengeAck }
func (m *challengeAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *challengeAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	m.state.field(c)
	c.Fixed(m.proof[:])
}

// mendMsg asks a holder to bring a block to its whole set at once.
type mendMsg struct {
	req  uint64
	guid id.GUID
}

func (*mendMsg) Kind() uint8                 { return kindMend }
func (m *mendMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *mendMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
}

// mendAckMsg says how many copies there are now.
type mendAckMsg struct {
	req    uint64
	copies uint8
}

func (*mendAckMsg) Kind() uint8                 { return kindMendAck }
func (m *mendAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *mendAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.U8(&m.copies)
}
