package files

import (
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
	"atoll.example/atoll/internal/wire/wiretest"
)

// TestGoldenBytes: a put that was cut off under an earlier release goes on
// under this one, and the catalogue is read for ever.
func TestGoldenBytes(t *testing.T) {
	h := journalHead{
		Source: identity{Device: 1, Inode: 2, Size: 3, Mtime: 4, Key: "key"}, Pool: [32]byte{5}, Claim: [16]byte{6},
		Secret: [8]byte{7}, Own: seal.Secret{8}, Unique: true, K: 3, W: 2, Chunk: 1 << 20, Name: "name", Created: 9,
	}
	type indexed struct {
		index int64
		a     ack
	}
	a := indexed{3, ack{length: 7, min: 2, target: 3, fresh: true, guid: id.FromPrefix("65a1fc"), read: seal.ReadKey{1}}}
	e := Entry{
		Name: "bücher\n", Size: 5, PutAt: time.UnixMilli(1_767_225_600_000),
		Link: seal.NewLink([32]byte{1, 2, 3, 4}, id.FromPrefix("65a1fc"), seal.ReadKey{1}),
	}
	wiretest.Bytes(t, "files", []wiretest.Sample{
		{Name: "journal, fields of the head", Value: h, Bytes: h.encode(), Decode: wiretest.Decoder(decodeHead)},
		{Name: "journal, acknowledged block", Value: a, Bytes: encodeAck(a.index, a.a), Decode: wiretest.Decoder(func(b []byte) (indexed, error) {
			i, a, err := decodeAck(b)
			return indexed{i, a}, err
		})},
		{Name: "catalogue, a line", Value: e, Bytes: []byte(e.line()), Decode: wiretest.Decoder(func(b []byte) (Entry, error) {
			body, ok := checkLine(string(b))
			if !ok {
				t.Error("the checksum of the golden line is wrong")
			}
			e, ok := parseEntry(body)
			if !ok {
				t.Error("the golden line is no entry")
			}
			return e, nil
		})},
	})
}
