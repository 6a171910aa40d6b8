package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// Kinds of message. Requests carry req, which the answer repeats.
//
//	64 Locate → 65 Located        72 Head → 73 HeadAck            82 Refuse (answers anything)
//	66 Put → 67 PutAck            74 Remove → 75 RemoveAck        83 PutSigned → 84 PutSignedAck
//	68 Copy → 69 CopyAck          76 SyncTree → 77 SyncTreeAck    85 GetSigned → 86 SignedIs
//	70 Get → 71 Block             78 SyncKeys → 79 SyncKeysAck    87 Survey → 88 SurveyAck
//	                              80 Want → 81 Offer, 68 Copy     89 Challenge → 90 ChallengeAck
//	91 Pointer (no answer)        92 Mend → 93 MendAck            94 Working (while a request takes long)
const (
	kindLocate uint8 = 64 + iota
	kindLocated
	kindPut
	kindPutAck
	kindCopy
	kindCopyAck
	kindGet
	kindBlock
	kindHead
	kindHeadAck
	kindRemove
	kindRemoveAck
	kindSyncTree
	kindSyncTreeAck
	kindSyncKeys
	kindSyncKeysAck
	kindWant
	kindOffer
	kindRefuse
	kindPutSigned
	kindPutSignedAck
	kindGetSigned
	kindSignedIs
	kindSurvey
	kindSurveyAck
	kindChallenge
	kindChallengeAck
	kindPointer
	kindMend
	kindMendAck
	kindWorking
	kindEnd
)

// Owns reports whether messages of a kind belong to this package.
func Owns(kind uint8) bool { return kind >= kindLocate && kind <= 95 }

// Bounds of lists in messages.
const (
	maxSet      = 4 * MaxReplicas // handles in an answer
	maxHead     = 256             // GUIDs in one Head
	maxKeys     = 1024            // items in one SyncKeys
	maxWant     = 256
	maxCerts    = 16 // with a block in one frame
	maxOffer    = 64 // items in one Offer
	maxRecords  = 256
	maxDomain   = 64
	maxDetail   = 200
	maxReceipts = 16
	bulkFrom    = 32 << 10 // messages larger than this go by a bulk stream
)

// body is what each message type adds to machine.Message for decoding.
type body interface {
	machine.Message
	read(r *wire.Reader)
}

// Decode decodes a message of this package: kind u8, version u8, fields.
// Blocks are hashed here, on the transport's goroutines; a block that does not
// match its name is marked so, for the sender to be reported.
func Decode(frame []byte) (machine.Message, error) {
	r := wire.NewReader(frame)
	kind, version := r.U8(), r.U8()
	if err := r.Err(); err != nil {
		return nil, err
	}
	if version != machine.Version {
		return nil, wire.ErrVersion
	}
	m := newMessage(kind)
	if m == nil {
		return nil, wire.ErrVersion
	}
	m.read(r)
	if err := r.Close(); err != nil {
		return nil, err
	}
	return m, nil
}

func newMessage(kind uint8) body {
	switch kind {
	case kindLocate:
		return &locateMsg{}
	case kindLocated:
		return &locatedMsg{}
	case kindPut:
		return &putMsg{}
	case kindPutAck:
		return &putAckMsg{}
	case kindCopy:
		return &copyMsg{}
	case kindCopyAck:
		return &copyAckMsg{}
	case kindGet:
		return &getMsg{}
	case kindBlock:
		return &blockMsg{}
	case kindHead:
		return &headMsg{}
	case kindHeadAck:
		return &headAckMsg{}
	case kindRemove:
		return &removeMsg{}
	case kindRemoveAck:
		return &removeAckMsg{}
	case kindSyncTree:
		return &syncTreeMsg{}
	case kindSyncTreeAck:
		return &syncTreeAckMsg{}
	case kindSyncKeys:
		return &syncKeysMsg{}
	case kindSyncKeysAck:
		return &syncKeysAckMsg{}
	case kindWant:
		return &wantMsg{}
	case kindOffer:
		return &offerMsg{}
	case kindRefuse:
		return &refuseMsg{}
	case kindPutSigned:
		return &putSignedMsg{}
	case kindPutSignedAck:
		return &putSignedAckMsg{}
	case kindGetSigned:
		return &getSignedMsg{}
	case kindSignedIs:
		return &signedIsMsg{}
	case kindSurvey:
		return &surveyMsg{}
	case kindSurveyAck:
		return &surveyAckMsg{}
	case kindChallenge:
		return &challengeMsg{}
	case kindChallengeAck:
		return &challengeAckMsg{}
	case kindPointer:
		return &pointerMsg{}
	case kindMend:
		return &mendMsg{}
	case kindMendAck:
		return &mendAckMsg{}
	case kindWorking:
		return &workingMsg{}
	}
	return nil
}

// check says whether a block has been compared with its name. It is local to
// the receiver: not sent, set by Decode.
type check uint8

const (
	unchecked check = iota // the message did not come through Decode
	matches
	differs
)

func checkBlock(g id.GUID, block []byte) check {
	if len(block) == 0 {
		return matches
	}
	if GUIDOf(block) != g || !CheckHeader(block) {
		return differs
	}
	return matches
}

// ok settles an unchecked block; messages are immutable, so nothing is kept.
func (c check) ok(g id.GUID, block []byte) bool {
	if c == unchecked {
		c = checkBlock(g, block)
	}
	return c == matches
}

func readBlock(r *wire.Reader) []byte { return r.Bytes32(MaxBlock) }

func writeHandles(w *wire.Writer, hs []*id.Handle) {
	w.U8(uint8(len(hs)))
	for _, h := range hs {
		w.Handle(h)
	}
}

func readHandles(r *wire.Reader, limit int) []*id.Handle {
	n := int(r.U8())
	if n > limit || n*wire.MinHandle > r.Len() {
		r.Fail(wire.ErrBound)
		return nil
	}
	var hs []*id.Handle
	for range n {
		hs = append(hs, r.Handle())
	}
	return hs
}

func writeGUIDs(w *wire.Writer, gs []id.GUID) {
	w.Count(len(gs))
	for i := range gs {
		w.GUID(gs[i])
	}
}

func readGUIDs(r *wire.Reader, limit int) []id.GUID {
	n := r.Count(limit, id.Size)
	if n == 0 {
		return nil
	}
	gs := make([]id.GUID, n)
	for i := range gs {
		gs[i] = r.GUID()
	}
	return gs
}

func writeReceipts(w *wire.Writer, rs []Receipt) {
	w.U8(uint8(len(rs)))
	for i := range rs {
		rs[i].AppendTo(w)
	}
}

func readReceipts(r *wire.Reader) []Receipt {
	n := int(r.U8())
	if n > maxReceipts || n*receiptSize > r.Len() {
		r.Fail(wire.ErrBound)
		return nil
	}
	if n == 0 {
		return nil
	}
	rs := make([]Receipt, n)
	for i := range rs {
		rs[i].read(r)
	}
	return rs
}

func writeCerts(w *wire.Writer, cs []StoreCert) {
	w.Count(len(cs))
	for i := range cs {
		cs[i].AppendTo(w)
	}
}

func readCerts(r *wire.Reader, limit int) []StoreCert {
	n := r.Count(limit, storeCertSize)
	if n == 0 {
		return nil
	}
	cs := make([]StoreCert, n)
	for i := range cs {
		cs[i].read(r)
	}
	return cs
}

func writeRemoves(w *wire.Writer, ms []Remove) {
	w.Count(len(ms))
	for i := range ms {
		ms[i].AppendTo(w)
	}
}

func readRemoves(r *wire.Reader, limit int) []Remove {
	n := r.Count(limit, removeSize)
	if n == 0 {
		return nil
	}
	ms := make([]Remove, n)
	for i := range ms {
		ms[i].read(r)
	}
	return ms
}

// refuseMsg answers any request that will not be served.
type refuseMsg struct {
	req    uint64
	code   code
	after  uint32 // ms, for busy
	stamp  uint64 // removed: the tombstone's stamp; clock: our clock; stale_seq, cas: our seq
	set    []*id.Handle
	detail string
}

func (*refuseMsg) Kind() uint8 { return kindRefuse }

func (m *refuseMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.U8(uint8(m.code))
	w.U32(m.after)
	w.U64(m.stamp)
	writeHandles(w, m.set)
	w.Bytes8([]byte(m.detail))
}

func (m *refuseMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.code = code(r.U8())
	if m.code == 0 || m.code >= codeEnd {
		r.Fail(wire.ErrValue)
	}
	m.after = r.U32()
	m.stamp = r.U64()
	m.set = readHandles(r, maxSet)
	m.detail = string(r.Bytes8(maxDetail))
}

// wireDomain bounds a failure-domain label for sending.
func wireDomain(d string) []byte { return []byte(d[:min(len(d), maxDomain)]) }
