package p2p

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/transport/transporttest"
)

func anyone([32]byte) bool { return true }

func textFor(t *testing.T, addr string, h *transporttest.Host) string {
	t.Helper()
	pid, err := peerOf(h.Handle().Key)
	if err != nil {
		t.Fatal(err)
	}
	return mdnsText + addr + "/p2p/" + pid.String()
}

func TestServiceName(t *testing.T) {
	a, b := serviceName([32]byte{1}), serviceName([32]byte{2})
	name, _ := strings.CutSuffix(a, "._udp")
	if a == b || a != serviceName([32]byte{1}) || len(name) != 16 || strings.Trim(name[1:], "abcdefghijklmnopqrstuvwxyz234567") != "" {
		t.Fatalf("%s, %s", a, b)
	}
}

// TestSightedIsBounded hears lies, and more than there is room for.
func TestSightedIsBounded(t *testing.T) {
	_, tr := member(t, 1, "lagoon", Config{})
	tr.reach.interfaces = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("192.168.7.7/24")} }
	b := transporttest.NewHost("lagoon", 2)
	key := b.Handle().Key
	for _, bad := range []string{
		"/ip4/8.8.8.8/tcp/1",             // public, and not of ours
		"/ip4/192.168.8.1/tcp/1",         // private, and not of ours
		"/ip4/169.254.169.254/tcp/80",    // metadata
		"/ip4/224.0.0.251/udp/1/quic-v1", // multicast
		"/dns4/localhost/tcp/1",
		"/ip4/192.168.7.1/tcp/1/p2p/" + somePeer + "/p2p-circuit",
		"/ip4/192.168.7.1/tcp/1/ws",
		"/ip4/192.168.7.1/udp/1",
	} {
		tr.sighted([]string{textFor(t, bad, b)}, anyone)
	}
	pid := tr.h.ID().String()
	tr.sighted([]string{"", mdnsText, "x=/ip4/192.168.7.1/tcp/1", mdnsText + "/ip4/192.168.7.1/tcp/1", mdnsText + "/ip4/192.168.7.1/tcp/1/p2p/" + pid, mdnsText + strings.Repeat("/", 5000)}, anyone)
	tr.sighted([]string{textFor(t, "/ip4/192.168.7.1/tcp/1", b)}, func([32]byte) bool { return false })
	if n := len(tr.seen.seen); n != 0 {
		t.Fatalf("%v", tr.seen.seen)
	}
	// Four addresses of one peer, the newest first.
	for port := 1; port <= 20; port++ {
		tr.sighted([]string{textFor(t, fmt.Sprintf("/ip4/192.168.7.1/tcp/%d", port), b)}, anyone)
	}
	if got := tr.seen.of(key); len(got) != 4 || got[0].String() != "/ip4/192.168.7.1/tcp/20" {
		t.Fatalf("%s", got)
	}
	// A bounded number of peers, all forgotten in time.
	m := ma.StringCast("/ip4/192.168.7.1/tcp/1")
	for i := range uint32(4 * maxSighted) {
		var k [32]byte
		binary.BigEndian.PutUint32(k[:], i+1)
		tr.seen.add(k, m, time.Now())
	}
	if n := len(tr.seen.seen); n != maxSighted {
		t.Fatalf("%d peers", n)
	}
	tr.sweepOnce(time.Now().Add(2 * sightedTime))
	if n := len(tr.seen.seen); n != 0 {
		t.Fatalf("%d peers for ever", n)
	}
}

// TestListenEndsEarly feeds more entries than a pool has members: the round is
// ended, and what still comes is read and thrown away.
func TestListenEndsEarly(t *testing.T) {
	_, tr := member(t, 1, "lagoon", Config{})
	heard, over, enough := make(chan *zeroconf.ServiceEntry), make(chan struct{}), make(chan struct{}, 100)
	done, asked := make(chan struct{}), 0
	go func() {
		defer close(done)
		tr.listen(heard, over, func() { enough <- struct{}{} }, func([32]byte) bool { asked++; return false })
	}()
	text := []string{textFor(t, "/ip4/127.0.0.1/tcp/9", transporttest.NewHost("lagoon", 2))}
	for range maxHeard + 50 {
		heard <- &zeroconf.ServiceEntry{Text: text}
	}
	close(over)
	<-done
	if len(enough) != 50 || asked != maxHeard {
		t.Fatalf("ended %d times, %d entries looked at", len(enough), asked)
	}
}

// FuzzSighted: whatever the local network tells, only addresses near this node are
// kept, four a peer.
func FuzzSighted(f *testing.F) {
	b := transporttest.NewHost("lagoon", 2)
	pid, err := peerOf(b.Handle().Key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(mdnsText + "/ip4/192.168.7.1/tcp/1/p2p/" + pid.String())
	f.Add(mdnsText + "/ip6/fe80::1/udp/1/quic-v1/p2p/" + pid.String())
	f.Add(mdnsText + "/ip4/8.8.8.8/tcp/1/p2p/" + pid.String() + "/p2p-circuit")
	tr := Transport{reach: newReach(false, nil)}
	tr.reach.interfaces = func() []netip.Prefix { return []netip.Prefix{netip.MustParsePrefix("192.168.7.7/24")} }
	f.Fuzz(func(t *testing.T, text string) {
		tr.seen = sightings{}
		tr.sighted([]string{text, text + "0", text}, anyone)
		for key, s := range tr.seen.seen {
			for _, m := range s.addrs {
				if len(s.addrs) > 2 || !tr.reach.near(m) {
					t.Errorf("%x at %v", key, s.addrs)
				}
			}
		}
	})
}
