package dht

import (
	"bytes"
	"encoding/binary"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire"
)

func idsOf(bs ...[]byte) (gs []id.GUID) {
	for _, b := range bs {
		gs = append(gs, GUIDOf(b))
	}
	return gs
}

func sampleCert() StoreCert {
	c := NewStoreCert([32]byte{1}, id.FromPrefix("aa"), pub(ownerKey(3)), [16]byte{4}, 100, 3, 5)
	c.SignWith(signer(ownerKey(3)))
	return c
}

func sampleReceipt() Receipt {
	r := Receipt{
		Pool: [32]byte{1}, GUID: id.FromPrefix("aa"), Owner: pub(ownerKey(3)), Claim: [16]byte{4}, Stamp: 7,
		Node: id.FromPrefix("bb"), Role: RoleStandIn, Synced: 9,
	}
	r.SignWith(signer(ownerKey(4)))
	return r
}

func sampleSigned() Signed {
	s := Signed{Pool: [32]byte{1}, Owner: pub(ownerKey(3)), Salt: []byte("salt"), Seq: 3, Value: []byte("value")}
	s.SignWith(signer(ownerKey(3)))
	return s
}

func sampleRemove() Remove {
	m := Remove{Pool: [32]byte{1}, GUID: id.FromPrefix("aa"), Owner: pub(ownerKey(3)), Claim: [16]byte{4}, Stamp: 6}
	m.SignWith(signer(ownerKey(3)))
	return m
}

// roundTrip checks that what parses is encoded to the same bytes.
func roundTrip[T any, P interface {
	*T
	AppendTo(*wire.Writer)
}](t *testing.T, decode func([]byte) (T, error), b []byte,
) {
	t.Helper()
	c, err := decode(b)
	if err != nil {
		return
	}
	if got := Encode(P(&c)); !bytes.Equal(got, b) {
		t.Fatalf("%x is encoded as %x", b, got)
	}
}

func FuzzRecords(f *testing.F) {
	c, r, s, m := sampleCert(), sampleReceipt(), sampleSigned(), sampleRemove()
	removed := Signed{Owner: s.Owner, Seq: 4, Removed: true}
	withPath := r
	withPath.Path = [][32]byte{{1}, {2}}
	for _, b := range [][]byte{Encode(&c), Encode(&r), Encode(&withPath), Encode(&s), Encode(&removed), Encode(&m), nil} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		roundTrip(t, DecodeStoreCert, b)
		roundTrip(t, DecodeReceipt, b)
		roundTrip(t, DecodeSigned, b)
		roundTrip(t, DecodeRemove, b)
	})
}

func TestRecordsRoundTripAndVerify(t *testing.T) {
	v := newWorld(t, LAN()).verify
	c := sampleCert()
	if d, err := DecodeStoreCert(Encode(&c)); err != nil || d != c || !d.Verify(v) {
		t.Errorf("certificate: %v", err)
	}
	c.Size++
	if c.Verify(v) {
		t.Error("an altered certificate verifies")
	}
	r := sampleReceipt()
	if d, err := DecodeReceipt(Encode(&r)); err != nil || !d.Verify(pub(ownerKey(4)), v) {
		t.Errorf("receipt: %v", err)
	}
	r.Role = RoleReplica
	if r.Verify(pub(ownerKey(4)), v) {
		t.Error("an altered receipt verifies")
	}
	s := sampleSigned()
	if d, err := DecodeSigned(Encode(&s)); err != nil || !d.Verify(v) || d.GUID() != s.GUID() {
		t.Errorf("signed: %v", err)
	}
	m := sampleRemove()
	if d, err := DecodeRemove(Encode(&m)); err != nil || d != m || !d.Verify(v) {
		t.Errorf("remove: %v", err)
	}
}

// A receipt of a batch leads to the signed root along its path, from either
// side.
func TestReceiptOfABatch(t *testing.T) {
	v := newWorld(t, LAN()).verify
	a, b := sampleReceipt(), sampleReceipt()
	b.Stamp = 8
	la, lb := a.leaf(), b.leaf()
	pair := func(x, y [32]byte) [32]byte {
		if bytes.Compare(y[:], x[:]) < 0 {
			x, y = y, x
		}
		return GUIDOf(append(append([]byte("atoll/receipt/node/1"), x[:]...), y[:]...))
	}
	root := pair(la, lb)
	sig := signer(ownerKey(4))(DomainReceipt, root[:])
	a.Root, a.Sig, a.Path = root, sig, [][32]byte{lb}
	b.Root, b.Sig, b.Path = root, sig, [][32]byte{la}
	if !a.Verify(pub(ownerKey(4)), v) || !b.Verify(pub(ownerKey(4)), v) {
		t.Error("a receipt of the batch does not verify")
	}
	b.Synced++
	if b.Verify(pub(ownerKey(4)), v) {
		t.Error("an altered receipt of the batch verifies")
	}
}

func sampleMessages() []machine.Message {
	h := &id.Handle{GUID: id.FromPrefix("ab"), Key: [32]byte{1}, Epoch: 2, Addrs: []string{"a", "bb"}}
	b := block(1, 64)
	c, r, s, rm := sampleCert(), sampleReceipt(), sampleSigned(), sampleRemove()
	cb := NewStoreCert([32]byte{}, GUIDOf(b), c.Owner, c.Claim, len(b), 3, 1)
	lo, hi := id.FromPrefix("10"), id.FromPrefix("20")
	items := []item{{id.FromPrefix("11"), sum128{1, 2}, itemHave}, {id.FromPrefix("12"), sum128{3, 4}, itemTombs}}
	return []machine.Message{
		&locateMsg{1, id.FromPrefix("cc"), true},
		&locatedMsg{1, id.FromPrefix("cc"), id.Arc{Lo: lo, Hi: hi}, 1, []place{{h, 30, "rack"}}},
		&putMsg{req: 1, roster: [32]byte{2}, left: 3, w: 2, cert: cb, block: b, sum: matches},
		&putAckMsg{1, false, true, []Receipt{r}},
		&putAckMsg{1, true, false, nil},
		&copyMsg{req: 1, role: RoleStandIn, guid: GUIDOf(b), certs: []StoreCert{cb}, block: b, sum: matches},
		&copyMsg{req: 1, role: RoleReplica, guid: rm.GUID, tombs: []Remove{rm}, block: []byte{}, sum: matches},
		&copyAckMsg{1, lo, false, 9, []Receipt{r}},
		&getMsg{1, lo},
		&blockMsg{req: 1, guid: GUIDOf(b), state: have, block: b, sum: matches},
		&blockMsg{req: 1, guid: lo, state: pointer, block: []byte{}, others: []*id.Handle{h}, sum: matches},
		&headMsg{1, []id.GUID{lo, hi}},
		&headAckMsg{1, []head{{have, RoleReplica, true, 1, 5, 6}}},
		&removeMsg{1, [32]byte{2}, 5, true, rm},
		&workingMsg{1},
		&removeAckMsg{1, true, []Receipt{r}},
		&syncTreeMsg{1, lo, hi, true, kids{3: {sum128{1, 2}, 3}}},
		&syncTreeAckMsg{1, true, 7, kids{3: {sum128{1, 2}, 3}}},
		&syncKeysMsg{1, lo, hi, true, items},
		&syncKeysAckMsg{1, lo, hi, true, true, items},
		&wantMsg{1, true, []id.GUID{lo}},
		&offerMsg{1, true, []offered{{guid: rm.GUID, certs: []StoreCert{c}, tombs: []Remove{rm}}, {guid: s.GUID(), signed: []Signed{s}}}},
		&refuseMsg{1, codeRemoved, 2, 3, []*id.Handle{h}, "why"},
		&putSignedMsg{1, [32]byte{2}, 3, stageRoot, true, 4, s, s.GUID()},
		&putSignedAckMsg{1, 2, []Receipt{r}},
		&getSignedMsg{1, [32]byte{1}, lo},
		&signedIsMsg{1, s.GUID(), have, true, []Signed{s}},
		&surveyMsg{1, lo},
		&surveyAckMsg{1, MemberSurvey{
			Blocks: 1, Full: 2, Degraded: 3, BelowW: 4, Lost: 5, RepairQueued: 6, RepairBytes: 7, RepairRate: 8,
			Usage: store.Usage{Limit: 9, Used: 10, Reserve: 11, Free: 12, Blocks: 13}, Unsynced: true,
		}},
		&challengeMsg{1, lo, [16]byte{1}},
		&challengeAckMsg{1, have, [32]byte{1}},
		&pointerMsg{lo, true, h},
		&mendMsg{1, lo},
		&mendAckMsg{1, 3},
	}
}

func encodeMessage(m machine.Message) []byte {
	var w wire.Writer
	machine.AppendMessage(&w, m)
	return w.B
}

func TestMessagesRoundTrip(t *testing.T) {
	seen := make(map[uint8]bool)
	for _, m := range sampleMessages() {
		b := encodeMessage(m)
		d, err := Decode(b)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if !bytes.Equal(encodeMessage(d), b) {
			t.Errorf("%T changes on the way", m)
		}
		for i := range b {
			if _, err := Decode(b[:i]); err == nil {
				t.Errorf("%T cut at %d decodes", m, i)
			}
		}
		if _, err := Decode(append(b, 0)); err == nil {
			t.Errorf("%T with a byte too many decodes", m)
		}
		seen[m.Kind()] = true
	}
	for k := kindLocate; k < kindEnd; k++ {
		if !seen[k] || !Owns(k) {
			t.Errorf("kind %d has no sample", k)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(encodeMessage(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if got := encodeMessage(m); !bytes.Equal(got, b) {
			t.Fatalf("%T: %x is encoded as %x", m, b, got)
		}
	})
}

// FuzzHeadRecord: kind and time of storing are for people, and not decoded.
func FuzzHeadRecord(f *testing.F) {
	f.Add(encodeHead(block(1, 100), RoleReplica, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, role, err := decodeHead(b)
		if err != nil {
			return
		}
		again := bytes.Clone(b)
		binary.BigEndian.PutUint32(again[2:], size)
		again[0], again[6] = recordVersion, byte(role)
		if len(b) != headRecordSize || !bytes.Equal(again, b) {
			t.Errorf("%x is taken for %d bytes as %d", b, size, role)
		}
	})
}
