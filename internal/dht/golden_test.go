package dht

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: what is signed, sent and stored stays as it is.
func TestGoldenBytes(t *testing.T) {
	c, r, s, rm := sampleCert(), sampleReceipt(), sampleSigned(), sampleRemove()
	c.Expires = 1 << 40
	c.SignWith(signer(ownerKey(3)))
	inBatch, removed := r, Signed{Pool: s.Pool, Owner: s.Owner, Salt: []byte{}, Seq: 4, Expires: 9, Removed: true}
	inBatch.Path = [][32]byte{{1}, {2}}
	removed.SignWith(signer(ownerKey(3)))
	samples := []wiretest.Sample{
		{Name: "store certificate", Value: c, Bytes: Encode(&c), Decode: wiretest.Decoder(DecodeStoreCert)},
		{Name: "receipt signed alone", Value: r, Bytes: Encode(&r), Decode: wiretest.Decoder(DecodeReceipt)},
		{Name: "receipt of a batch", Value: inBatch, Bytes: Encode(&inBatch), Decode: wiretest.Decoder(DecodeReceipt)},
		{Name: "signed block", Value: s, Bytes: Encode(&s), Decode: wiretest.Decoder(DecodeSigned)},
		{Name: "signed block, removed", Value: removed, Bytes: Encode(&removed), Decode: wiretest.Decoder(DecodeSigned)},
		{Name: "remove", Value: rm, Bytes: Encode(&rm), Decode: wiretest.Decoder(DecodeRemove)},
		{
			Name: "head record on disk", Value: headRecord{100, RoleDiverted}, Bytes: encodeHead(block(1, 100), RoleDiverted, 5),
			Decode: wiretest.Decoder(func(b []byte) (headRecord, error) {
				size, role, err := decodeHead(b)
				return headRecord{size, role}, err
			}),
		},
	}
	h := &id.Handle{GUID: id.FromPrefix("ab"), Key: [32]byte{1}, Epoch: 2, Addrs: []string{"a"}}
	samples = append(samples, wiretest.Sample{
		Name: "pointer on disk", Value: h, Bytes: pointerOp(id.FromPrefix("aa"), h).Value,
		Decode: wiretest.Decoder(func(b []byte) (*id.Handle, error) {
			r := wire.NewReader(b)
			return r.Handle(), r.Close()
		}),
	})
	last := ""
	for _, m := range sampleMessages() {
		name := fmt.Sprintf("message %d %s", m.Kind(), strings.TrimSuffix(fmt.Sprintf("%T", m)[len("*dht."):], "Msg"))
		if name == last {
			name += ", again"
		}
		last = name
		samples = append(samples, wiretest.Sample{Name: name, Value: m, Bytes: encodeMessage(m), Decode: wiretest.Decoder(Decode)})
	}
	wiretest.Bytes(t, "dht", samples)
}

// headRecord is what decodeHead returns.
type headRecord struct {
	size uint32
	role Role
}

// Blocks that are out there keep their names.
func TestGoldenNames(t *testing.T) {
	if b := block(1, 16); !bytes.Equal(b[:8], []byte("ATB1\x01\x00\x00\x00")) || !CheckHeader(b) {
		t.Errorf("header %x", b[:8])
	}
	for name, c := range map[string]struct {
		got  id.GUID
		want string
	}{
		"content block": {GUIDOf(block(1, 16)), "d763895ef82a18b23524f9835316718a83fb736549d2f7f2956882a1f587ee8f"},
		"signed block":  {SignedGUID([32]byte{1}, []byte("salt")), "a9eb34b37e4691390d12a83eb072973b990db2e15cad56a33a20b86fe5e16209"},
	} {
		if c.got.String() != c.want {
			t.Errorf("%s: %s", name, c.got)
		}
	}
}
