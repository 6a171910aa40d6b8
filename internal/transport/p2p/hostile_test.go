package p2p

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
	"atoll.example/atoll/internal/wire"
)

// hasty is less patience than a node has, so that tests end.
var hasty = times{
	shake: 600 * time.Millisecond, fresh: 1500 * time.Millisecond, frame: 600 * time.Millisecond,
	stall: 700 * time.Millisecond, answer: 500 * time.Millisecond, sweep: 100 * time.Millisecond,
	queued: patience.queued,
}

// victim is a node under attack, and a friend whom the attack must not harm.
type victim struct {
	*transporttest.Host
	tr     *Transport
	friend *transporttest.Host
	ftr    *Transport
}

func newVictim(t *testing.T, limits Limits, h *transporttest.Host) *victim {
	t.Helper()
	return newVictimWith(t, limits, h, hasty)
}

func newVictimWith(t *testing.T, limits Limits, h *transporttest.Host, times times) *victim {
	t.Helper()
	if h == nil {
		h = transporttest.NewHost("lagoon", 1)
	}
	tr, err := newWith(Config{Key: h.Key, Loopback: true, Limits: limits}, h, times)
	if err != nil {
		t.Fatal(err)
	}
	h.SetHandle(1, tr.Addrs())
	f := transporttest.NewHost("lagoon", 2)
	v := &victim{Host: h, tr: tr, friend: f, ftr: start(t, f, Config{Loopback: true})}
	f.SetHandle(1, v.ftr.Addrs())
	t.Cleanup(func() {
		v.Stop()
		f.Stop()
		_ = v.tr.Close()
		_ = v.ftr.Close()
	})
	return v
}

// well checks that a friend still gets through.
func (v *victim) well(t *testing.T) {
	t.Helper()
	if err := v.tr.Send(v.friend.Handle(), false, []byte("all well")); err != nil {
		t.Fatal(err)
	}
	if g := v.friend.Next(t); string(g.Frame) != "all well" {
		t.Fatalf("%q", g.Frame)
	}
}

// mallory is a bare libp2p node with a certificate, if she wants one.
type mallory struct {
	host.Host
	m    *transporttest.Host
	conn network.Conn
}

func newMallory(t *testing.T, v *victim, opts ...libp2p.Option) *mallory {
	t.Helper()
	m := &mallory{m: transporttest.NewHost("lagoon", 66)}
	key, err := crypto.UnmarshalEd25519PrivateKey(m.m.Key)
	if err != nil {
		t.Fatal(err)
	}
	opts = append([]libp2p.Option{
		libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics(),
		libp2p.ConnectionManager(&connmgr.NullConnMgr{}), libp2p.ResourceManager(&network.NullResourceManager{}),
	}, opts...)
	if m.Host, err = libp2p.New(opts...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	m.conn = m.connect(t, v)
	return m
}

func (m *mallory) connect(t *testing.T, v *victim) network.Conn {
	t.Helper()
	addr, err := decodeAddr(v.tr.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	pid := v.tr.h.ID()
	if err := m.Connect(t.Context(), peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{addr}}); err != nil {
		t.Fatal(err)
	}
	return m.Network().ConnsToPeer(pid)[0]
}

func (m *mallory) stream(t *testing.T, p protocol.ID) *stream {
	t.Helper()
	s, err := newStream(t.Context(), m.conn, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// link makes a handshake and returns the control stream.
func (m *mallory) link(t *testing.T) *stream {
	t.Helper()
	s := m.stream(t, linkProto)
	m.write(t, s, wire.AppendFrame(nil, m.m.Hello()))
	if _, err := readVerdict(s, transport.MaxHello); err != nil {
		t.Fatal(err)
	}
	if err := writeVerdict(s, nil, nil); err != nil {
		t.Fatal(err)
	}
	return s
}

func (m *mallory) write(t *testing.T, s io.Writer, b []byte) {
	t.Helper()
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
}

// ended waits until the victim has ended the stream.
func ended(t *testing.T, s *stream) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(transporttest.Patience))
	_, err := io.Copy(io.Discard, s)
	if err != nil && strings.Contains(err.Error(), "deadline") {
		t.Fatal("the stream is still open")
	}
}

func closed(t *testing.T, c network.Conn) {
	t.Helper()
	transporttest.Until(t, "connection closed", c.IsClosed)
}

func huge() []byte { return binary.BigEndian.AppendUint32(nil, 0xffffffff) }

func TestHugeLength(t *testing.T) {
	for name, f := range map[string]func(*testing.T, *mallory) *stream{
		"hello": func(t *testing.T, m *mallory) *stream {
			s := m.stream(t, linkProto)
			m.write(t, s, huge())
			return s
		},
		"control": func(t *testing.T, m *mallory) *stream {
			s := m.link(t)
			m.write(t, s, huge())
			return s
		},
		"bulk": func(t *testing.T, m *mallory) *stream {
			m.link(t)
			s := m.stream(t, bulkProto)
			m.write(t, s, huge())
			return s
		},
		"ask": func(t *testing.T, m *mallory) *stream {
			s := m.stream(t, askProto)
			m.write(t, s, huge())
			return s
		},
		"just over": func(t *testing.T, m *mallory) *stream {
			s := m.link(t)
			m.write(t, s, binary.BigEndian.AppendUint32(nil, transport.MaxControl+1))
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, Limits{}, nil)
			m := newMallory(t, v)
			before := allocated()
			ended(t, f(t, m))
			transporttest.Until(t, "counted", func() bool {
				s := v.tr.Stats()
				return s.BadFrames+s.AskRefused == 1
			})
			if name != "ask" {
				closed(t, m.conn)
			}
			if used := allocated() - before; used > 16<<20 {
				t.Fatalf("%d bytes allocated", used)
			}
			v.well(t)
		})
	}
}

// allocated counts what was given back since, too: a buffer that a refused frame
// left behind is gone from the heap before it could be seen there.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestStall covers slow-loris: streams that stop in the middle.
func TestStall(t *testing.T) {
	part := binary.BigEndian.AppendUint32(nil, 60_000)
	for name, f := range map[string]func(*testing.T, *mallory) *stream{
		"no hello": func(t *testing.T, m *mallory) *stream {
			s := m.stream(t, linkProto)
			m.write(t, s, []byte{0})
			return s
		},
		"no third message": func(t *testing.T, m *mallory) *stream {
			s := m.stream(t, linkProto)
			m.write(t, s, wire.AppendFrame(nil, m.m.Hello()))
			return s
		},
		"header": func(t *testing.T, m *mallory) *stream {
			s := m.link(t)
			m.write(t, s, part[:2])
			return s
		},
		"control": func(t *testing.T, m *mallory) *stream {
			s := m.link(t)
			m.write(t, s, append(part, "and then"...))
			return s
		},
		"bulk": func(t *testing.T, m *mallory) *stream {
			m.link(t)
			s := m.stream(t, bulkProto)
			m.write(t, s, append(binary.BigEndian.AppendUint32(nil, transport.MaxBulk), "and then"...))
			return s
		},
		"ask": func(t *testing.T, m *mallory) *stream {
			s := m.stream(t, askProto)
			m.write(t, s, part[:3])
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t, Limits{}, nil)
			m := newMallory(t, v)
			ended(t, f(t, m))
			transporttest.Until(t, "counted", func() bool { return v.tr.Stats().Stalls == 1 })
			v.well(t)
		})
	}
}

// TestTrickle feeds one byte at a time, each in good time: the frame as a
// whole must still come in time.
func TestTrickle(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	s := m.link(t)
	m.write(t, s, binary.BigEndian.AppendUint32(nil, 60_000))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	began := time.Now()
	for range tick.C {
		if _, err := s.Write([]byte{1}); err != nil {
			break
		}
		if time.Since(began) > transporttest.Patience {
			t.Fatal("the stream is still open")
		}
	}
	v.well(t)
}

// TestReadsNothing sends nothing and reads nothing: our writer must give up,
// and queues stay within their bounds.
func TestReadsNothing(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	m.link(t)
	transporttest.Until(t, "link", func() bool { return len(v.tr.Links()) == 1 })
	to := m.m.Handle()
	transporttest.Until(t, "a stall", func() bool {
		for range 64 {
			if v.tr.Send(to, false, make([]byte, transport.MaxControl)) != nil {
				break
			}
			_ = v.tr.Send(to, true, make([]byte, transport.MaxBulk))
		}
		return v.tr.Stats().Stalls > 0
	})
	if q := v.tr.Stats().QueuedBytes; q > 52<<20+4*transport.MaxBulk {
		t.Fatalf("%d bytes queued", q)
	}
	v.well(t)
}

func TestHalfClose(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	s := m.link(t)
	transporttest.Until(t, "link", func() bool { return len(v.tr.Links()) == 1 })
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	ended(t, s)
	closed(t, m.conn)
	transporttest.Until(t, "no link", func() bool { return len(v.tr.Links()) == 0 })
	v.well(t)
}

// TestStreamFlood opens 10,000 streams, on which nothing happens.
func TestStreamFlood(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	v.well(t)
	m := newMallory(t, v)
	m.link(t)
	before, routines := heap(), runtime.NumGoroutine()
	opened := 0
	for ; opened < 10_000; opened++ {
		s, err := m.conn.NewStream(context.Background())
		if err != nil {
			break
		}
		_, _ = s.Write([]byte("\x13/multistream/1.0.0\n"))
	}
	closed(t, m.conn)
	s := v.tr.Stats()
	if s.Floods != 1 || s.BlockedStreams == 0 || s.BlockedMemory != 0 {
		t.Fatalf("after %d streams: %+v", opened, s)
	}
	// She is shut out for a while.
	_ = m.Connect(t.Context(), peer.AddrInfo{ID: v.tr.h.ID()})
	transporttest.Until(t, "no connection", func() bool { return len(v.tr.swarm.ConnsToPeer(m.ID())) == 0 })
	transporttest.Until(t, "goroutines gone", func() bool { return runtime.NumGoroutine() < routines+50 })
	if grown := heap() - before; grown > 32<<20 {
		t.Fatalf("%d bytes more", grown)
	}
	v.well(t)
}

// TestBulkWithoutLink opens bulk streams before, and more than it may after,
// the handshake.
func TestBulkWithoutLink(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	s := m.stream(t, bulkProto)
	m.write(t, s, wire.AppendFrame(nil, []byte("let me in")))
	ended(t, s)
	v.Idle(t, 0)
	if n := v.tr.Stats().BadFrames; n != 1 {
		t.Fatalf("%d counted", n)
	}
}

func TestTooManyBulkStreams(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	m.link(t)
	transporttest.Until(t, "link", func() bool { return len(v.tr.Links()) == 1 })
	for range 5 * maxBulk {
		s := m.stream(t, bulkProto)
		_, _ = s.Write(wire.AppendFrame(nil, []byte("x")))
	}
	transporttest.Until(t, "refused", func() bool {
		s := v.tr.Stats()
		return s.BlockedStreams+s.BadFrames >= 3*maxBulk
	})
	if n := v.tr.Stats().BulkIn; n > 2*maxBulk {
		t.Fatalf("%d streams served", n)
	}
	v.well(t)
}

// TestFrameFlood sends as fast as it can to a host that is slow: what is held
// for it must stay bounded.
func TestFrameFlood(t *testing.T) {
	h := transporttest.NewHost("lagoon", 1)
	var taken atomic.Int64
	h.OnReceive = func(_ *id.Handle, _ bool, f []byte) {
		taken.Add(int64(len(f)))
		<-h.Done()
	}
	v := newVictim(t, Limits{}, h)
	m := newMallory(t, v)
	s := m.link(t)
	before := heap()
	var sent atomic.Int64
	pour := func(s *stream, frame []byte) {
		_ = s.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for {
			n, err := s.Write(frame)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}
	done := make(chan struct{})
	for range maxBulk {
		b := m.stream(t, bulkProto)
		go func() {
			pour(b, wire.AppendFrame(nil, make([]byte, 900_000)))
			done <- struct{}{}
		}()
	}
	go func() {
		pour(s, wire.AppendFrame(nil, make([]byte, 1000)))
		done <- struct{}{}
	}()
	for range maxBulk + 1 {
		<-done
	}
	// Windows on both ends are in this process.
	if grown := heap() - before; grown > 2*(maxBulk+1)*maxWindow+16<<20 {
		t.Fatalf("%d bytes held of %d sent", grown, sent.Load())
	}
	h.Stop()
}

func TestForeignKeys(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	addr, err := decodeAddr(v.tr.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, gen := range map[string]func() (crypto.PrivKey, error){
		"secp256k1": func() (crypto.PrivKey, error) {
			k, _, err := crypto.GenerateSecp256k1Key(rand.Reader)
			return k, err
		},
		"ECDSA": func() (crypto.PrivKey, error) {
			k, _, err := crypto.GenerateECDSAKeyPair(rand.Reader)
			return k, err
		},
		"RSA": func() (crypto.PrivKey, error) {
			k, _, err := crypto.GenerateRSAKeyPair(2048, rand.Reader)
			return k, err
		},
	} {
		key, err := gen()
		if err != nil {
			t.Fatal(err)
		}
		h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ConnectionManager(&connmgr.NullConnMgr{}))
		if err != nil {
			t.Fatal(err)
		}
		err = h.Connect(t.Context(), peer.AddrInfo{ID: v.tr.h.ID(), Addrs: []ma.Multiaddr{addr}})
		if err == nil { // a TLS 1.3 client learns of a refusal late
			s, err := h.Network().NewStream(t.Context(), v.tr.h.ID())
			if err == nil {
				_, _ = s.Write([]byte("\x13/multistream/1.0.0\n"))
				if _, err = s.Read(make([]byte, 1)); err == nil {
					t.Errorf("a peer with a key of kind %s was served", name)
				}
			}
		}
		_ = h.Close()
	}
}

// TestIdleStranger connects and says nothing.
func TestIdleStranger(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	closed(t, m.conn)
	v.well(t)
}

// TestConnectionFlood opens connections from many keys until no more are
// taken, while a friend's link goes on.
func TestConnectionFlood(t *testing.T) {
	v := newVictimWith(t, Limits{Conns: 24, Streams: 512}, nil, patience)
	v.well(t)
	addr, err := decodeAddr(v.tr.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for range 60 {
		key, _, err := crypto.GenerateEd25519Key(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		h, err := libp2p.New(libp2p.Identity(key), libp2p.NoListenAddrs, libp2p.DisableMetrics(), libp2p.ConnectionManager(&connmgr.NullConnMgr{}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		if h.Connect(t.Context(), peer.AddrInfo{ID: v.tr.h.ID(), Addrs: []ma.Multiaddr{addr}}) != nil {
			failed++
		}
	}
	if n := len(v.tr.swarm.Conns()); n > 24 {
		t.Fatalf("%d connections", n)
	}
	if failed == 0 || v.tr.Stats().BlockedConns == 0 {
		t.Fatalf("%d refused, %d counted", failed, v.tr.Stats().BlockedConns)
	}
	v.well(t)
}

// TestGarbageHello feeds nonsense to the handshake.
func TestGarbageHello(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	for _, b := range [][]byte{{}, {0}, make([]byte, transport.MaxHello), []byte("\xff\xff\xff\xff"), []byte("GET / HTTP/1.1\r\n\r\n")} {
		m := newMallory(t, v)
		s := m.stream(t, linkProto)
		m.write(t, s, wire.AppendFrame(nil, b))
		if _, err := readVerdict(s, transport.MaxHello); err == nil {
			t.Fatalf("hello %q was admitted", b)
		}
		_ = s.Reset()
		closed(t, m.conn)
		_ = m.Close()
	}
	v.well(t)
}

// TestBadVerdict answers our hello with nonsense, or a refusal that is no text.
func TestBadVerdict(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	for name, b := range map[string][]byte{
		"empty":   wire.AppendFrame(nil, nil),
		"kind":    wire.AppendFrame(nil, []byte{9}),
		"huge":    huge(),
		"refusal": wire.AppendFrame(nil, append([]byte{0}, "\x1b]0;owned\a\u202e\xff no"...)),
	} {
		m := newMallory(t, v)
		m.SetStreamHandler(linkProto, func(s network.Stream) {
			_, _ = wire.ReadFrame(s, transport.MaxHello)
			_, _ = s.Write(b)
		})
		_, err := v.tr.shake(t.Context(), v.tr.swarm.ConnsToPeer(m.ID())[0])
		if err == nil {
			t.Fatalf("%s: a link", name)
		}
		if strings.ContainsAny(err.Error(), "\x1b\a\u202e") || !utf8.ValidString(err.Error()) {
			t.Fatalf("%q", err)
		}
		_ = m.Close()
		transporttest.Until(t, "gone", func() bool { return len(v.tr.swarm.ConnsToPeer(m.ID())) == 0 })
	}
}
