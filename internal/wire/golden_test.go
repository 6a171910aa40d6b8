package wire_test

import (
	"bytes"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: what every message is made of.
func TestGoldenBytes(t *testing.T) {
	h := &id.Handle{
		GUID: id.FromPrefix("65a1fc"), Key: [32]byte{1}, Epoch: 7,
		Addrs: []string{"\x04\x0a\x00\x00\x01\x06\x0f\xa1", "bb"},
	}
	var w wire.Writer
	w.Handle(h)
	var n wire.Writer
	n.U8(1)
	n.U16(0x0203)
	n.U32(0x04050607)
	n.U64(0x08090a0b0c0d0e0f)
	n.Bool(true)
	n.Bool(false)
	n.Bytes8([]byte("a"))
	n.Bytes16([]byte("bc"))
	n.Bytes32([]byte("def"))
	n.Count(2)
	fields := []any{uint8(1), uint16(0x0203), uint32(0x04050607), uint64(0x08090a0b0c0d0e0f), true, false, "a", "bc", "def", 2}
	wiretest.Bytes(t, "wire", []wiretest.Sample{
		{Name: "fields", Value: fields, Bytes: n.B, Decode: func(b []byte) (any, error) {
			r := wire.NewReader(b)
			got := []any{
				r.U8(), r.U16(), r.U32(), r.U64(), r.Bool(), r.Bool(),
				string(r.Bytes8(1)), string(r.Bytes16(2)), string(r.Bytes32(3)), r.Count(2, 0),
			}
			return got, r.Close()
		}},
		{Name: "handle", Value: h, Bytes: w.B, Decode: func(b []byte) (any, error) {
			r := wire.NewReader(b)
			return r.Handle(), r.Close()
		}},
		{Name: "frame", Value: []byte("payload"), Bytes: wire.AppendFrame(nil, []byte("payload")), Decode: func(b []byte) (any, error) {
			return wire.ReadFrame(bytes.NewReader(b), 7)
		}},
	})
}
