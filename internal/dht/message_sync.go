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

func (k *kids) write(w *wire.Writer) {
	for i := range k {
		w.U64(k[i].sum.hi)
		w.U64(k[i].sum.lo)
		w.U32(k[i].count)
	}
}

func (k *kids) read(r *wire.Reader) {
	for i := range k {
		k[i] = digest{sum128{r.U64(), r.U64()}, r.U32()}
	}
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

func (*syncTreeMsg) Kind() uint8 { return kindSyncTree }

func (m *syncTreeMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.lo)
	w.GUID(m.hi)
	w.Bool(m.rejoin)
	m.kids.write(w)
}

func (m *syncTreeMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.lo, m.hi = readRange(r)
	m.rejoin = r.Bool()
	m.kids.read(r)
}

func readRange(r *wire.Reader) (lo, hi id.GUID) {
	lo, hi = r.GUID(), r.GUID()
	if hi.Less(lo) {
		r.Fail(wire.ErrValue)
	}
	return lo, hi
}

type syncTreeAckMsg struct {
	req      uint64
	unsynced bool // the answering node is itself new to (part of) this range
	free     uint64
	kids     kids
}

func (*syncTreeAckMsg) Kind() uint8 { return kindSyncTreeAck }

func (m *syncTreeAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Bool(m.unsynced)
	w.U64(m.free)
	m.kids.write(w)
}

func (m *syncTreeAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.unsynced = r.Bool()
	m.free = r.U64()
	m.kids.read(r)
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

func writeItems(w *wire.Writer, items []item) {
	w.Count(len(items))
	for i := range items {
		w.GUID(items[i].guid)
		w.U64(items[i].tag.hi)
		w.U64(items[i].tag.lo)
		w.U8(items[i].flags)
	}
}

// readItems reads items in strictly rising order of GUID within [lo, hi].
func readItems(r *wire.Reader, lo, hi id.GUID) []item {
	n := r.Count(maxKeys, itemSize)
	if n == 0 {
		return nil
	}
	items := make([]item, n)
	for i := range items {
		it := item{r.GUID(), sum128{r.U64(), r.U64()}, r.U8()}
		if it.flags&^itemFlags != 0 || it.guid.Less(lo) || hi.Less(it.guid) ||
			i > 0 && !items[i-1].guid.Less(it.guid) {
			r.Fail(wire.ErrValue)
		}
		items[i] = it
	}
	return items
}

// syncKeysMsg lists the sender's items on [lo, hi]: all of them, or with
// partial those it holds outside its own arcs, to be compared one by one.
type syncKeysMsg struct {
	req     uint64
	lo, hi  id.GUID
	partial bool
	items   []item
}

func (*syncKeysMsg) Kind() uint8 { return kindSyncKeys }

func (m *syncKeysMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.lo)
	w.GUID(m.hi)
	w.Bool(m.partial)
	writeItems(w, m.items)
}

func (m *syncKeysMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.lo, m.hi = readRange(r)
	m.partial = r.Bool()
	m.items = readItems(r, m.lo, m.hi)
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

func (*syncKeysAckMsg) Kind() uint8 { return kindSyncKeysAck }

func (m *syncKeysAckMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.GUID(m.lo)
	w.GUID(m.hi)
	w.Bool(m.unsynced)
	w.Bool(m.more)
	writeItems(w, m.items)
}

func (m *syncKeysAckMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.lo, m.hi = readRange(r)
	m.unsynced = r.Bool()
	m.more = r.Bool()
	m.items = readItems(r, m.lo, m.hi)
}

// wantMsg asks for records (answered by Offer), or with bytes for one block
// (answered by a Copy that repeats req).
type wantMsg struct {
	req   uint64
	bytes bool
	guids []id.GUID
}

func (*wantMsg) Kind() uint8 { return kindWant }

func (m *wantMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Bool(m.bytes)
	writeGUIDs(w, m.guids)
}

func (m *wantMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.bytes = r.Bool()
	m.guids = readGUIDs(r, maxWant)
	if m.bytes && len(m.guids) != 1 {
		r.Fail(wire.ErrValue)
	}
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

// offerMsg answers Want; more: another follows.
type offerMsg struct {
	req   uint64
	more  bool
	items []offered
}

func (*offerMsg) Kind() uint8 { return kindOffer }

func (m *offerMsg) AppendBody(w *wire.Writer) {
	w.U64(m.req)
	w.Bool(m.more)
	w.Count(len(m.items))
	for i := range m.items {
		o := &m.items[i]
		w.GUID(o.guid)
		writeCerts(w, o.certs)
		writeRemoves(w, o.tombs)
		writeSigned(w, o.signed)
	}
}

func (m *offerMsg) read(r *wire.Reader) {
	m.req = r.U64()
	m.more = r.Bool()
	n := r.Count(maxOffer, id.Size+5)
	for range n {
		o := offered{guid: r.GUID()}
		o.certs = readCerts(r, maxRecords)
		o.tombs = readRemoves(r, maxRecords)
		o.signed = readSigned(r, o.guid)
		for i := range o.certs {
			if o.certs[i].GUID != o.guid {
				r.Fail(wire.ErrValue)
			}
		}
		for i := range o.tombs {
			if o.tombs[i].GUID != o.guid {
				r.Fail(wire.ErrValue)
			}
		}
		if r.Err() != nil {
			return
		}
		m.items = append(m.items, o)
	}
}

// pointerMsg tells a candidate where a diverted copy is, or (drop) that the
// sender no longer holds a surplus copy.
type pointerMsg struct {
	guid   id.GUID
	drop   bool
	holder *id.Handle
}

func (*pointerMsg) Kind() uint8 { return kindPointer }

func (m *pointerMsg) AppendBody(w *wire.Writer) {
	w.GUID(m.guid)
	w.Bool(m.drop)
	w.Handle(m.holder)
}

func (m *pointerMsg) read(r *wire.Reader) {
	m.guid = r.GUID()
	m.drop = r.Bool()
	m.holder = r.Handle()
}
