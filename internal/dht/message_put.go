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

func (*locateMsg) Kind() uint8 { return kindLocate }

func (m *locateMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.key)
	w.Bool(m.get)
}

func (m *locateMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.key = r.GUID()
	m.get = r.Bool()
}

// place is one node of an answer to Locate.
type place struct {
	h      *id.Handle
	free   uint8 // bits of the number of free bytes: 0 full, 30 about 1 GiB
	domain string
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

func (*locatedMsg) Kind() uint8 { return kindLocated }

func (m *locatedMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.key)
	w.GUID(m.arc.Lo)
	w.GUID(m.arc.Hi)
	w.U8(m.inSet)
	w.U8(uint8(len(m.places)))
	for _, p := range m.places {
		w.Handle(p.h)
		w.U8(p.free)
		w.Bytes8(wireDomain(p.domain))
	}
}

func (m *locatedMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.key = r.GUID()
	m.arc.Lo = r.GUID()
	m.arc.Hi = r.GUID()
	m.inSet = r.U8()
	n := int(r.U8())
	if n > maxSet || n*(wire.MinHandle+2) > r.Len() || int(m.inSet) > n {
		r.Fail(wire.ErrBound)
		return
	}
	for range n {
		m.places = append(m.places, place{r.Handle(), r.U8(), string(r.Bytes8(maxDomain))})
	}
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

func (*putMsg) Kind() uint8 { return kindPut }

func (m *putMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Fixed(m.roster[:])
	w.U32(m.left)
	w.U8(m.w)
	m.cert.AppendTo(w)
	w.Bytes32(m.block)
}

func (m *putMsg) read(r *wire.Reader) {
	m.req = r.U64()
	r.Into(m.roster[:])
	m.left = r.U32()
	m.w = r.U8()
	m.cert.read(r)
	m.block = readBlock(r)
	m.sum = checkBlock(m.cert.GUID, m.block)
}

// putAckMsg: W receipts, or want: send the bytes.
type putAckMsg struct {
	req      uint64
	want     bool
	known    bool // the bytes were here before
	receipts []Receipt
}

func (*putAckMsg) Kind() uint8 { return kindPutAck }

func (m *putAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Bool(m.want)
	w.Bool(m.known)
	writeReceipts(w, m.receipts)
}

func (m *putAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.want = r.Bool()
	m.known = r.Bool()
	m.receipts = readReceipts(r)
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

func (*copyMsg) Kind() uint8 { return kindCopy }

func (m *copyMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.U8(uint8(m.role))
	w.GUID(m.guid)
	writeCerts(w, m.certs)
	writeRemoves(w, m.tombs)
	w.Bytes32(m.block)
}

func (m *copyMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.role = Role(r.U8())
	if m.role < RoleReplica || m.role > RoleStandIn {
		r.Fail(wire.ErrValue)
	}
	m.guid = r.GUID()
	m.certs = readCerts(r, maxCerts)
	m.tombs = readRemoves(r, maxCerts)
	m.block = readBlock(r)
	m.sum = checkBlock(m.guid, m.block)
	for i := range m.certs {
		if m.certs[i].GUID != m.guid {
			r.Fail(wire.ErrValue)
		}
	}
	for i := range m.tombs {
		if m.tombs[i].GUID != m.guid {
			r.Fail(wire.ErrValue)
		}
	}
}

// copyAckMsg follows the replica's fsync. Want: the bytes are not here.
type copyAckMsg struct {
	req      uint64
	guid     id.GUID
	want     bool
	free     uint64
	receipts []Receipt // at most one: of the first certificate
}

func (*copyAckMsg) Kind() uint8 { return kindCopyAck }

func (m *copyAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.guid)
	w.Bool(m.want)
	w.U64(m.free)
	writeReceipts(w, m.receipts)
}

func (m *copyAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.guid = r.GUID()
	m.want = r.Bool()
	m.free = r.U64()
	m.receipts = readReceipts(r)
}

// removeMsg: to a coordinator, or (copy) from it to the replicas.
type removeMsg struct {
	req    uint64
	roster [32]byte
	left   uint32 // ms until the client's deadline
	copy   bool
	rec    Remove
}

func (*removeMsg) Kind() uint8 { return kindRemove }

func (m *removeMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Fixed(m.roster[:])
	w.U32(m.left)
	w.Bool(m.copy)
	m.rec.AppendTo(w)
}

func (m *removeMsg) read(r *wire.Reader) {
	m.req = r.U64()
	r.Into(m.roster[:])
	m.left = r.U32()
	m.copy = r.Bool()
	m.rec.read(r)
}

type removeAckMsg struct {
	req      uint64
	kept     bool // other claims keep the bytes
	receipts []Receipt
}

func (*removeAckMsg) Kind() uint8 { return kindRemoveAck }

func (m *removeAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Bool(m.kept)
	writeReceipts(w, m.receipts)
}

func (m *removeAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.kept = r.Bool()
	m.receipts = readReceipts(r)
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

func (*putSignedMsg) Kind() uint8 { return kindPutSigned }

func (m *putSignedMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Fixed(m.roster[:])
	w.U32(m.left)
	w.U8(uint8(m.stage))
	w.Bool(m.hasCAS)
	w.U64(m.cas)
	m.rec.AppendTo(w)
}

func (m *putSignedMsg) read(r *wire.Reader) {
	m.req = r.U64()
	r.Into(m.roster[:])
	m.left = r.U32()
	m.stage = stage(r.U8())
	if m.stage < stageRoot || m.stage > stageKeep {
		r.Fail(wire.ErrValue)
	}
	m.hasCAS = r.Bool()
	m.cas = r.U64()
	if !m.hasCAS && m.cas != 0 {
		r.Fail(wire.ErrValue)
	}
	m.rec.read(r)
	if r.Err() == nil {
		m.guid = m.rec.GUID()
	}
}

type putSignedAckMsg struct {
	req      uint64
	seq      uint64
	receipts []Receipt
}

func (*putSignedAckMsg) Kind() uint8 { return kindPutSignedAck }

func (m *putSignedAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.U64(m.seq)
	writeReceipts(w, m.receipts)
}

func (m *putSignedAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.seq = r.U64()
	m.receipts = readReceipts(r)
}

// workingMsg tells a client that its coordinator is alive and waits for
// others.
type workingMsg struct{ req uint64 }

func (*workingMsg) Kind() uint8                 { return kindWorking }
func (m *workingMsg) AppendBody(w *wire.Writer) { w.U64(m.req) }
func (m *workingMsg) read(r *wire.Reader)       { m.req = r.U64() }
