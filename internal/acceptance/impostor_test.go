package acceptance

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/p2p"
	"atoll.example/atoll/internal/wire"
)

// papers are what a member's folder holds of its identity.
type papers struct {
	key    ident.Key
	pool   *ident.Pool
	chain  ident.Chain
	handle *id.Handle
}

// papersOf reads the folder of member i, which listens at addr.
func (p *pool) papersOf(i int, addr string) papers {
	p.t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(p.procs[i].dir, name))
		if err != nil {
			p.t.Fatal(err)
		}
		return b
	}
	var of papers
	r := wire.NewReader(read("member"))
	pool, chain := r.Bytes16(1<<16-1), r.Bytes16(1<<16-1)
	var errs [4]error
	of.key, errs[0] = ident.ParseKey(read("node.key"))
	of.pool, errs[1] = ident.ParsePool(pool)
	of.chain, errs[2] = ident.ParseChain(chain)
	addr, errs[3] = p2p.ParseAddr(addr)
	if err := errors.Join(append(errs[:], r.Close())...); err != nil {
		p.t.Fatal(err)
	}
	of.handle = &id.Handle{
		GUID: of.key.GUID(), Key: of.key.Public(), Epoch: binary.BigEndian.Uint32(read("epoch")), Addrs: []string{addr},
	}
	return of
}

// impostor is a peer that shows papers in handshakes, its own or others'.
type impostor struct {
	papers
	shown *id.Handle
}

func (m *impostor) Hello() []byte {
	h := ident.Hello{Min: ident.WireMin, Max: ident.WireMax, Wall: time.Now().UnixMilli(), Pool: m.pool.ID(), Chain: m.chain, Handle: m.shown}
	return h.Encode()
}

func (m *impostor) Admit(_ [32]byte, hello []byte) (*id.Handle, error) {
	h, err := ident.ParseHello(hello)
	if err != nil {
		return nil, err
	}
	return h.Handle, nil
}

func (m *impostor) Receive(*id.Handle, bool, []byte) {}

func (m *impostor) Answer(context.Context, [32]byte, []byte) ([]byte, error) {
	return nil, errors.New("no answer")
}

// dial gives the impostor a network under a key.
func (m *impostor) dial(t *testing.T, key ident.Key) *p2p.Transport {
	t.Helper()
	seed := key.Seed()
	tr, err := p2p.New(p2p.Config{Key: ed25519.NewKeyFromSeed(seed[:]), Loopback: true, NoQUIC: true}, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// TestHostilePeer: a stranger shows the papers of a member, and announces a frame
// of 4 GiB; a member floods with garbage. The victim refuses, counts, stays within
// its memory, and serves the others meanwhile.
func TestHostilePeer(t *testing.T) {
	t.Parallel()
	p := newPool(t, 3)
	rnd := rand.New(rand.NewPCG(91, 92))
	f, err := p.put(0, 3<<20, rnd)
	if err != nil {
		t.Fatal(err)
	}
	p.allFull(0, 30*time.Second)
	var st [3]api.Status
	for i := range st {
		p.ok(i, &st[i], "status")
	}
	victim := p.papersOf(0, st[0].Node.Addrs[0]).handle

	t.Run("stolen GUID", func(t *testing.T) {
		of := p.papersOf(1, st[1].Node.Addrs[0])
		key, err := ident.NewKey(crand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		stolen := *of.handle
		stolen.Key = key.Public()
		for _, shown := range []*id.Handle{of.handle, &stolen} {
			before := p.metric(0, `atoll_dropped_total{what="bad_hello"}`)
			m := &impostor{papers: of, shown: shown}
			tr := m.dial(t, key)
			p.until(10*time.Second, "the impostor to be refused", func() bool {
				err := tr.Send(victim, false, []byte("I am n1"))
				return p.metric(0, `atoll_dropped_total{what="bad_hello"}`) > before && errors.Is(err, transport.ErrRefused)
			})
		}
		var peers api.Peers
		p.ok(0, &peers, "peers")
		for _, m := range peers.Peers {
			if m.Name == "n1" && m.State != "live" {
				t.Errorf("the member whose papers were shown is %s", m.State)
			}
		}
	})
	t.Run("4 GiB", func(t *testing.T) { announceHuge(t, victim.Key, st[0].Node.Addrs[0]) })
	t.Run("flood", func(t *testing.T) {
		of := p.papersOf(2, st[2].Node.Addrs[0])
		p.stop(2)
		of.handle.Epoch++
		p.flood(t, &impostor{papers: of, shown: of.handle}, victim, f)
	})
	p.stop(0)
	t.Logf("peak of the victim: %d MiB", p.procs[0].peakKB>>10)
}

// flood sends garbage as fast as it goes while others read and write.
func (p *pool) flood(t *testing.T, m *impostor, victim *id.Handle, f stored) {
	tr := m.dial(t, m.key)
	span := 3 * time.Second
	if *full {
		span = time.Minute
	}
	stop := often(func() {
		for tr.Send(victim, false, make([]byte, 60_000)) == nil {
		}
	})
	rnd := rand.New(rand.NewPCG(93, 94))
	p.until(10*time.Second, "the flood to arrive", func() bool { return p.metric(0, `atoll_dropped_total{what="bad_frame"}`) > 0 })
	done := 0
	for begin := time.Now(); time.Since(begin) < span; done++ {
		if err := p.get(0, f, rnd); err != nil {
			t.Errorf("reading in a flood: %v", err)
		}
		if _, err := p.put(1, 200_000, rnd); err != nil {
			t.Errorf("writing in a flood: %v", err)
		}
	}
	stop()
	t.Logf("%d reads and writes in a flood of %s, %d frames dropped", done, span, p.metric(0, `atoll_dropped_total{what="bad_frame"}`))
}

// announceHuge opens a stream as a stranger and announces a frame of 4 GiB.
func announceHuge(t *testing.T, key [32]byte, addr string) {
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = h.Close() }()
	public, err := crypto.UnmarshalEd25519PublicKey(key[:])
	if err != nil {
		t.Fatal(err)
	}
	pid, err := peer.IDFromPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	at, err := manet.FromNetAddr(tcp)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{at}}); err != nil {
		t.Fatal(err)
	}
	s, err := h.NewStream(t.Context(), pid, "/atoll/link/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if err := s.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the stream is still open")
	}
}
