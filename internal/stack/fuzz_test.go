package stack

import (
	"bytes"
	"testing"
)

// FuzzDecode: what parses re-encodes to the same bytes, whoever's it is.
func FuzzDecode(f *testing.F) {
	f.Add(encodeMessage(sampleAnswer()))
	f.Add([]byte{1, 1})
	f.Add([]byte{64, 1})
	f.Add([]byte{96, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if again := encodeMessage(m); !bytes.Equal(again, b) {
			t.Errorf("%T: %x is encoded as %x", m, b, again)
		}
	})
}

func FuzzHops(f *testing.F) {
	f.Add(appendHops(sampleAnswer().Hops, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if hops, err := readHops(b); err == nil && !bytes.Equal(appendHops(hops, nil), b) {
			t.Errorf("%x is encoded as %x", b, appendHops(hops, nil))
		}
	})
}
