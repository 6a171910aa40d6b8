package p2p

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzVerdict: an answer of the other side's is its body, or a refusal fit to
// be shown, or a fault.
func FuzzVerdict(f *testing.F) {
	const limit = 64
	for _, no := range []error{nil, errors.New("no room")} {
		var b bytes.Buffer
		if err := writeVerdict(&b, []byte("body"), no); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := readVerdict(bytes.NewReader(b), limit)
		no := new(refusal)
		switch {
		case err == nil:
			var again bytes.Buffer
			if err := writeVerdict(&again, body, nil); err != nil || len(body) > limit || !bytes.HasPrefix(b, again.Bytes()) {
				t.Errorf("%x is encoded as %x, %v", b, again.Bytes(), err)
			}
		case errors.As(err, &no):
			if no.reason != reasonOf(no.reason) || len(no.reason) > maxReason {
				t.Errorf("the reason %q is not cleaned", no.reason)
			}
		}
	})
}

func FuzzListen(f *testing.F) {
	for _, s := range []string{":4001", "[::1]:5", "10.0.0.1", "/ip4/127.0.0.1/udp/5/quic-v1", "*:1"} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, text string, quic bool) {
		addrs, err := ParseListen(text, quic)
		if err != nil {
			return
		}
		for _, a := range addrs {
			if again, err := ParseListen(a, quic); err != nil || len(again) != 1 || again[0] != a {
				t.Errorf("%q gives %q, which gives %q, %v", text, a, again, err)
			}
		}
	})
}
