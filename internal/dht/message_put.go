package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// locateMsg is the body of a routed message: where is key kept?
type locateMsg struct {
	req uint64
	key id.GUID
	get bool // for reading: a holder on the way may answer
}

func (*locateMsg) Kind() uint8                 { return kindLocate }
func (m *locateMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *locateMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.key)
	c.Bool(&m.get)
}

// place is one node of an answer to Locate.
type place struct {
	h      *id.Handle
	free   uint8 // bits of the number of free bytes: 0 full, 30 about 1 GiB
	domain string
}

func (p *place) fields(c wire.Codec) {
	c.Handle(&p.h)
	c.U8(&p.free)
	domain := p.domain[:min(len(p.domain), maxDomain)]
	c.Text8(&domain, maxDomain)
	if c.Read() {
		p.domain = domain
	}
}

// locatedMsg: the first inSet places are the set of all keys on the arc, the
// others candidates.
type locatedMsg struct {
	req    uint64
	key    id.GUID
	arc    id.Arc
	inSet  uint8
	places []place
}

func (*locatedMsg) Kind() uint8                 { return kindLocated }
func (m *locatedMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *locatedMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.key)
	c.GUID(&m.arc.Lo)
	c.GUID(&m.arc.Hi)
	c.U8(&m.inSet)
	wire.List8(c, &m.places, maxSet, wire.MinHandle+2, (*place).fields)
	c.Check(int(m.inSet) <= len(m.places), wire.ErrBound)
}

// putMsg asks a coordinator to store a block on its set.
type putMsg struct {
	req    uint64
	roster [32]byte // digest of the client's roster
	left   uint32   // ms until the client's deadline
	w      uint8    // wanted quorum; 0: the rule's
	cert   StoreCert
	block  []byte // empty: known to the pool, the certificate alone
	sum    check
}

func (*putMsg) Kind() uint8                 { return kindPut }
func (m *putMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *putMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	client(c, &m.roster, &m.left)
	c.U8(&m.w)
	m.cert.fields(c)
	blockOf(c, m.cert.GUID, &m.block, &m.sum)
}

// putAckMsg: W receipts, or want: send the bytes.
type putAckMsg struct {
	req      uint64
	want     bool
	known    bool // the bytes were here before
	receipts []Receipt
}

func (*putAckMsg) Kind() uint8                 { return kindPutAck }
func (m *putAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *putAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Bool(&m.want)
	c.Bool(&m.known)
	receiptList(c, &m.receipts)
}

// copyMsg hands a replica a block, or claims and tombstones of one it has.
type copyMsg struct {
	req   uint64
	role  Role
	guid  id.GUID
	certs []StoreCert
	tombs []Remove
	block []byte
	sum   check
}

func (*copyMsg) Kind() uint8                 { return kindCopy }
func (m *copyMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *copyMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	wire.Enum(c, &m.role, RoleReplica, RoleStandIn)
	c.GUID(&m.guid)
	records(c, m.guid, &m.certs, &m.tombs, maxCerts)
	blockOf(c, m.guid, &m.block, &m.sum)
}

// copyAckMsg follows the replica's fsync. Want: the bytes are not here.
type copyAckMsg struct {
	req      uint64
	guid     id.GUID
	want     bool
	free     uint64
	receipts []Receipt // at most one: of the first certificate
}

func (*copyAckMsg) Kind() uint8                 { return kindCopyAck }
func (m *copyAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *copyAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.GUID(&m.guid)
	c.Bool(&m.want)
	c.U64(&m.free)
	receiptList(c, &m.receipts)
}

// removeMsg: to a coordinator, or (copy) from it to the replicas.
type removeMsg struct {
	req    uint64
	roster [32]byte
	left   uint32 // ms until the client's deadline
	copy   bool
	rec    Remove
}

func (*removeMsg) Kind() uint8                 { return kindRemove }
func (m *removeMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *removeMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	client(c, &m.roster, &m.left)
	c.Bool(&m.copy)
	m.rec.fields(c)
}

type removeAckMsg struct {
	req      uint64
	kept     bool      // other claims keep the bytes
	receipts []Receipt // none: there is nothing to remove
}

func (*removeAckMsg) Kind() uint8                 { return kindRemoveAck }
func (m *removeAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *removeAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Bool(&m.kept)
	receiptList(c, &m.receipts)
}

// stage says who a PutSigned is for.
type stage uint8

const (
	stageRoot     stage = 1 // the root, under its delivery lease
	stageFallback stage = 2 // the next of the set: the root was silent or without lease
	stageReplica  stage = 3 // a replica, from the coordinator or a reader: a vote
	stageKeep     stage = 4 // a node that should have the record; no vote
)

type putSignedMsg struct {
	req    uint64
	roster [32]byte
	left   uint32 // ms until the client's deadline
	stage  stage
	hasCAS bool
	cas    uint64
	rec    Signed
	guid   id.GUID // computed, not sent
}

func (*putSignedMsg) Kind() uint8                 { return kindPutSigned }
func (m *putSignedMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *putSignedMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	client(c, &m.roster, &m.left)
	wire.Enum(c, &m.stage, stageRoot, stageKeep)
	c.Bool(&m.hasCAS)
	c.U64(&m.cas)
	c.Check(m.hasCAS || m.cas == 0, wire.ErrValue)
	m.rec.fields(c)
	if c.Read() {
		m.guid = m.rec.GUID()
	}
}

type putSignedAckMsg struct {
	req      uint64
	seq      uint64
	receipts []Receipt
}

func (*putSignedAckMsg) Kind() uint8                 { return kindPutSignedAck }
func (m *putSignedAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *putSignedAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.U64(&m.seq)
	receiptList(c, &m.receipts)
}

// workingMsg tells a client that its coordinator is alive and waits for
// others.
type workingMsg struct{ req uint64 }

func (*workingMsg) Kind() uint8                 { return kindWorking }
func (m *workingMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *workingMsg) fields(c wire.Codec) {
	c.U64(&m.req)
}
