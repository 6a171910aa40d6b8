package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// digest sums up the items of a stretch of the ring.
type digest struct {
	sum   sum128
	count uint32
}

// kids are the digests of the 16 parts of a range: see split.
type kids [16]digest

func (k *kids) fields(c wire.Codec) {
	for i := range k {
		k[i].sum.fields(c)
		c.U32(&k[i].count)
	}
}

func (s *sum128) fields(c wire.Codec) {
	c.U64(&s.hi)
	c.U64(&s.lo)
}

// syncTreeMsg compares [lo, hi], both inclusive, lo ≤ hi. Rejoin: the sender
// had evicted the receiver and has it back, so the receiver may have missed
// what others agreed on meanwhile.
type syncTreeMsg struct {
	req    uint64
	lo, hi id.GUID
	rejoin bool
	kids   kids
}

func (*syncTreeMsg) Kind() uint8                 { return kindSyncTree }
func (m *syncTreeMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *syncTreeMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	stretch(c, &m.lo, &m.hi)
	c.Bool(&m.rejoin)
	m.kids.fields(c)
}

type syncTreeAckMsg struct {
	req      uint64
	unsynced bool // the answering node is itself new to (part of) this range
	free     uint64
	kids     kids
}

func (*syncTreeAckMsg) Kind() uint8                 { return kindSyncTreeAck }
func (m *syncTreeAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *syncTreeAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Bool(&m.unsynced)
	c.U64(&m.free)
	m.kids.fields(c)
}

// Flags of an item.
const (
	itemHave   uint8 = 1 << iota // the bytes or the signed record are there
	itemSigned                   // a signed block
	itemTombs                    // there are tombstones
	itemClaims                   // there are live claims
	itemFlags  = itemHave | itemSigned | itemTombs | itemClaims
)

// item is one key of a SyncKeys.
type item struct {
	guid  id.GUID
	tag   sum128
	flags uint8
}

const itemSize = 32 + 16 + 1

func (it *item) fields(c wire.Codec) {
	c.GUID(&it.guid)
	it.tag.fields(c)
	c.U8(&it.flags)
	c.Check(it.flags&^itemFlags == 0, wire.ErrValue)
}

// itemsOn are items in strictly rising order of GUID within [lo, hi].
func itemsOn(c wire.Codec, lo, hi id.GUID, items *[]item) {
	wire.List(c, items, maxKeys, itemSize, (*item).fields)
	if !c.Read() {
		return
	}
	for i, it := range *items {
		c.Check(!it.guid.Less(lo) && !hi.Less(it.guid) && (i == 0 || (*items)[i-1].guid.Less(it.guid)), wire.ErrValue)
	}
}

// syncKeysMsg lists the sender's items on [lo, hi]: all of them, or with
// partial those it holds outside its own arcs, to be compared one by one.
type syncKeysMsg struct {
	req     uint64
	lo, hi  id.GUID
	partial bool
	items   []item
}

func (*syncKeysMsg) Kind() uint8                 { return kindSyncKeys }
func (m *syncKeysMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *syncKeysMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	stretch(c, &m.lo, &m.hi)
	c.Bool(&m.partial)
	itemsOn(c, m.lo, m.hi, &m.items)
}

// syncKeysAckMsg lists the answering node's items on the same range, or only
// those asked for if the question was partial. More: there were too many.
type syncKeysAckMsg struct {
	req      uint64
	lo, hi   id.GUID
	unsynced bool
	more     bool
	items    []item
}

func (*syncKeysAckMsg) Kind() uint8                 { return kindSyncKeysAck }
func (m *syncKeysAckMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *syncKeysAckMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	stretch(c, &m.lo, &m.hi)
	c.Bool(&m.unsynced)
	c.Bool(&m.more)
	itemsOn(c, m.lo, m.hi, &m.items)
}

// wantMsg asks for records (answered by Offer), or with bytes for one block
// (answered by a Copy that repeats req).
type wantMsg struct {
	req   uint64
	bytes bool
	guids []id.GUID
}

func (*wantMsg) Kind() uint8                 { return kindWant }
func (m *wantMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *wantMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Bool(&m.bytes)
	guidList(c, &m.guids, maxWant)
	c.Check(!m.bytes || len(m.guids) == 1, wire.ErrValue)
}

// offered are the records of one GUID, without its bytes.
type offered struct {
	guid   id.GUID
	certs  []StoreCert
	tombs  []Remove
	signed []Signed
}

func (o *offered) size() int {
	n := id.Size + 5 + len(o.certs)*storeCertSize + len(o.tombs)*removeSize
	for i := range o.signed {
		n += o.signed[i].size()
	}
	return n
}

func (o *offered) fields(c wire.Codec) {
	c.GUID(&o.guid)
	records(c, o.guid, &o.certs, &o.tombs, maxRecords)
	versions(c, o.guid, &o.signed)
}

// offerMsg answers Want; more: another follows.
type offerMsg struct {
	req   uint64
	more  bool
	items []offered
}

func (*offerMsg) Kind() uint8                 { return kindOffer }
func (m *offerMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *offerMsg) fields(c wire.Codec) {
	c.U64(&m.req)
	c.Bool(&m.more)
	wire.List(c, &m.items, maxOffer, id.Size+5, (*offered).fields)
}

// pointerMsg tells a candidate where a diverted copy is, or (drop) that the
// sender no longer holds a surplus copy.
type pointerMsg struct {
	guid   id.GUID
	drop   bool
	holder *id.Handle
}

func (*pointerMsg) Kind() uint8                 { return kindPointer }
func (m *pointerMsg) AppendBody(w *wire.Writer) { m.fields(w.Codec()) }

func (m *pointerMsg) fields(c wire.Codec) {
	c.GUID(&m.guid)
	c.Bool(&m.drop)
	c.Handle(&m.holder)
}
