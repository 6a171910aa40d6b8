package node

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"

	"atoll.example/atoll/internal/transport/p2p"
)

// FuzzEpoch: whatever the file holds, the epoch rises, but for the last there is.
func FuzzEpoch(f *testing.F) {
	f.Add([]byte{0, 0, 0, 7}, uint32(0))
	f.Add([]byte{0, 0, 0, 7}, uint32(9))
	f.Add([]byte{255, 255, 255, 255}, uint32(0))
	f.Add([]byte{}, uint32(0))
	f.Add([]byte{0, 0, 0, 7, 0}, uint32(3))
	f.Fuzz(func(t *testing.T, b []byte, atLeast uint32) {
		got := epochAfter(b, atLeast)
		if got == 0 || got < atLeast {
			t.Errorf("%x and %d give %d", b, atLeast, got)
		}
		if len(b) != 4 {
			return
		}
		if was := binary.BigEndian.Uint32(b); got <= was && was != math.MaxUint32 {
			t.Errorf("%d follows %d", got, was)
		}
	})
}

// FuzzPort: a port one can listen on, which is written as it is read, or none.
func FuzzPort(f *testing.F) {
	for _, s := range []string{"4001\n", "0", "65535", "65536", "-1", "+5", "", "99999999999999999999"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		port := parsePort(b)
		if port < 0 || port > 65535 {
			t.Fatalf("%q is port %d", b, port)
		}
		if again := parsePort(fmt.Appendf(nil, "%d\n", port)); again != port {
			t.Errorf("%q is port %d, then %d", b, port, again)
		}
	})
}

// FuzzKnown: what is read are addresses, and they are read again as written.
func FuzzKnown(f *testing.F) {
	f.Add([]byte("10.0.0.1:4001\n/ip6/::1/udp/9/quic-v1\n"))
	f.Add([]byte("10.0.0.1:4001\nno address\n\"\\x01\\x02\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		addrs := parseKnown(b)
		var text strings.Builder
		for _, a := range addrs {
			text.WriteString(p2p.FormatAddr(a) + "\n")
		}
		if again := parseKnown([]byte(text.String())); strings.Join(again, "\n") != strings.Join(addrs, "\n") {
			t.Errorf("%q is read as %q, then as %q", b, addrs, again)
		}
	})
}

// TestKnownDamaged: a line that is no address does not keep a node from starting.
func TestKnownDamaged(t *testing.T) {
	n := &Node{home: tempHome(t), who: goldenWho(t), cfg: Config{Loopback: true}}
	if err := n.home.write(knownFile, []byte("10.0.0.1:4001\n\"\\x01\\x02\"\n")); err != nil {
		t.Fatal(err)
	}
	cfg, err := n.transportConfig()
	if err != nil {
		t.Fatal(err)
	}
	cfg.NoListen = true
	tr, err := p2p.New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}
