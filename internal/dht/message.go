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

// body is a message as it is decoded: its fields after kind and version.
type body interface {
	machine.Message
	fields(c wire.Codec)
}

// messages makes an empty message of each kind.
var messages = [...]func() body{
	kindLocate:       empty[locateMsg],
	kindLocated:      empty[locatedMsg],
	kindPut:          empty[putMsg],
	kindPutAck:       empty[putAckMsg],
	kindCopy:         empty[copyMsg],
	kindCopyAck:      empty[copyAckMsg],
	kindGet:          empty[getMsg],
	kindBlock:        empty[blockMsg],
	kindHead:         empty[headMsg],
	kindHeadAck:      empty[headAckMsg],
	kindRemove:       empty[removeMsg],
	kindRemoveAck:    empty[removeAckMsg],
	kindSyncTree:     empty[syncTreeMsg],
	kindSyncTreeAck:  empty[syncTreeAckMsg],
	kindSyncKeys:     empty[syncKeysMsg],
	kindSyncKeysAck:  empty[syncKeysAckMsg],
	kindWant:         empty[wantMsg],
	kindOffer:        empty[offerMsg],
	kindRefuse:       empty[refuseMsg],
	kindPutSigned:    empty[putSignedMsg],
	kindPutSignedAck: empty[putSignedAckMsg],
	kindGetSigned:    empty[getSignedMsg],
	kindSignedIs:     empty[signedIsMsg],
	kindSurvey:       empty[surveyMsg],
	kindSurveyAck:    empty[surveyAckMsg],
	kindChallenge:    empty[challengeMsg],
	kindChallengeAck: empty[challengeAckMsg],
	kindPointer:      empty[pointerMsg],
	kindMend:         empty[mendMsg],
	kindMendAck:      empty[mendAckMsg],
	kindWorking:      empty[workingMsg],
}

func empty[T any, P interface {
	*T
	body
}]() body {
	return P(new(T))
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
	if version != machine.Version || !Owns(kind) || kind >= kindEnd {
		return nil, wire.ErrVersion
	}
	m := messages[kind]()
	m.fields(r.Codec())
	if err := r.Close(); err != nil {
		return nil, err
	}
	return m, nil
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

// Lists and values of several messages.

func handleList(c wire.Codec, hs *[]*id.Handle) {
	wire.List8(c, hs, maxSet, wire.MinHandle, func(h **id.Handle, c wire.Codec) { c.Handle(h) })
}

func guidList(c wire.Codec, gs *[]id.GUID, limit int) {
	wire.List(c, gs, limit, id.Size, func(g *id.GUID, c wire.Codec) { c.GUID(g) })
}

func receiptList(c wire.Codec, rs *[]Receipt) {
	wire.List8(c, rs, maxReceipts, receiptSize, (*Receipt).fields)
}

// records are the certificates and tombstones of block g.
func records(c wire.Codec, g id.GUID, certs *[]StoreCert, tombs *[]Remove, limit int) {
	wire.List(c, certs, limit, storeCertSize, (*StoreCert).fields)
	wire.List(c, tombs, limit, removeSize, (*Remove).fields)
	for i := range *certs {
		c.Check((*certs)[i].GUID == g, wire.ErrValue)
	}
	for i := range *tombs {
		c.Check((*tombs)[i].GUID == g, wire.ErrValue)
	}
}

// versions are at most two versions of the signed block g.
func versions(c wire.Codec, g id.GUID, recs *[]Signed) {
	wire.List8(c, recs, 2, minSigned, (*Signed).fields)
	if c.Read() {
		for i := range *recs {
			c.Check((*recs)[i].GUID() == g, wire.ErrValue)
		}
	}
}

// stretch is a range of the ring, both ends inclusive, lo ≤ hi.
func stretch(c wire.Codec, lo, hi *id.GUID) {
	c.GUID(lo)
	c.GUID(hi)
	c.Check(!hi.Less(*lo), wire.ErrValue)
}

// client is what a client says of itself in a request that it waits for.
func client(c wire.Codec, roster *[32]byte, left *uint32) {
	c.Fixed(roster[:])
	c.U32(left)
}

// blockOf are the bytes of g, or none; sum says whether they are.
func blockOf(c wire.Codec, g id.GUID, block *[]byte, sum *check) {
	c.Bytes32(block, MaxBlock)
	if c.Read() {
		*sum = checkBlock(g, *block)
	}
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

func (m *refuseMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *refuseMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	wire.Enum(c, &m.code, 1, codeEnd-1)
	c.U32(&m.after)
	c.U64(&m.stamp)
	handleList(c, &m.set)
	c.Text8(&m.detail, maxDetail)
}
