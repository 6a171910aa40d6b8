package p2p

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	mss "github.com/multiformats/go-multistream"

	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
	"atoll.example/atoll/internal/wire"
)

// rawConn is a connection made by hand, a step at a time, so that it can stop
// at any: bare TCP, then TLS under a key of its own, then yamux.
type rawConn struct {
	net.Conn
	mux network.MuxedConn
}

// places finds TCP and UDP of the victim as package net has them.
func (v *victim) places(t testing.TB) (tcp, udp string) {
	t.Helper()
	for _, a := range v.tr.Addrs() {
		m, err := decodeAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if isQUIC(m) {
			udp = textOf(m)
		} else {
			tcp = textOf(m)
		}
	}
	return tcp, udp
}

func (c *rawConn) secure(ctx context.Context, to peer.ID) error {
	if err := mss.SelectProtoOrFail(libp2ptls.ID, c.Conn); err != nil {
		return err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	k, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return err
	}
	sec, err := libp2ptls.New(libp2ptls.ID, k, nil)
	if err != nil {
		return err
	}
	s, err := sec.SecureOutbound(ctx, c.Conn, to)
	if err != nil {
		return err
	}
	c.Conn = s
	return nil
}

func (c *rawConn) multiplex() error {
	if err := mss.SelectProtoOrFail(yamux.ID, c.Conn); err != nil {
		return err
	}
	var err error
	c.mux, err = yamux.DefaultTransport.NewConn(c.Conn, false, nil)
	return err
}

// open opens a stream of proto and writes b.
func (c *rawConn) open(ctx context.Context, proto string, b []byte) (network.MuxedStream, error) {
	s, err := c.mux.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	msg := []byte("\x13/multistream/1.0.0\n")
	msg = append(msg, byte(len(proto)+1))
	msg = append(append(append(msg, proto...), '\n'), b...)
	_, err = s.Write(msg)
	return s, err
}

func (c *rawConn) close() {
	if c.mux != nil {
		_ = c.mux.Close()
	}
	_ = c.Close()
}

// attack is one hostile connection of kind i. Those that come as far as they
// want are held until the victim ends them or hold is closed, as many as held
// has room for: were all held, the first hundred would be the whole attack.
func (v *victim) attack(ctx context.Context, i int, tcp, udp string, held chan struct{}, hold <-chan struct{}) {
	if i%8 == 7 {
		sendGarbage(udp, byte(i))
		return
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", tcp)
	if err != nil {
		return
	}
	c := &rawConn{Conn: conn}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer c.close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	switch i % 8 {
	case 0: // says nothing
	case 1: // is no node at all
		_, _ = conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	case 2: // stops within the TLS handshake
		if mss.SelectProtoOrFail(libp2ptls.ID, conn) == nil {
			_, _ = conn.Write([]byte{22, 3, 1, 2, 0, 1, 0, 1, 0xfc})
		}
	default:
		if c.secure(ctx, v.tr.h.ID()) != nil {
			return
		}
		if i%8 == 3 || c.multiplex() != nil { // stops before it is of use
			break
		}
		streams := 4
		if i%5 == 0 { // too many
			streams = 2 * strangerStreams
		}
		var last network.MuxedStream
		for range streams {
			switch i % 8 {
			case 4:
				last, err = c.open(ctx, string(linkProto), wire.AppendFrame(nil, []byte("let me in")))
			case 5:
				last, err = c.open(ctx, string(askProto), huge())
			case 6:
				if last, err = c.open(ctx, string(linkProto), nil); err == nil {
					_ = last.Reset()
				}
			}
			if err != nil {
				return
			}
		}
		_, _ = io.Copy(io.Discard, last)
	}
	select {
	case held <- struct{}{}:
		defer func() { <-held }()
	default:
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = conn.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, conn)
	}()
	select {
	case <-gone:
	case <-hold:
		_ = conn.Close()
		<-gone
	}
}

// sendGarbage sends datagrams that begin like QUIC and are none: version 0, 1
// and the highest, connection ids of any length, and noise.
func sendGarbage(udp string, seed byte) {
	c, err := net.Dial("udp", udp)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	for _, version := range []uint32{0, 1, 0x6b3343cf, 0xff00001d, 0xffffffff} {
		for _, cid := range []byte{0, 8, 20, 255} {
			b := make([]byte, 1200)
			_, _ = rand.Read(b)
			b[0] = 0xc0 | seed&0x3f
			binary.BigEndian.PutUint32(b[1:], version)
			b[5] = cid
			_, _ = c.Write(b)
			_, _ = c.Write(b[:1+int(seed)%40])
		}
	}
}

// TestFlood lets hostile connections of all kinds come, a thousand or more and
// many at a time, while two members talk. They must go on talking, and what
// the flood makes this node hold must have a bound and be gone when it is over.
func TestFlood(t *testing.T) {
	const attackers, atOnce, lasting = 1000, 200, 3 * time.Second
	limits := DefaultLimits()
	v := newVictimWith(t, limits, nil, times{
		shake: 2 * time.Second, fresh: 2 * time.Second, frame: 2 * time.Second,
		stall: 2 * time.Second, answer: 2 * time.Second, sweep: 100 * time.Millisecond,
		queued: patience.queued,
	})
	v.well(t)
	tcp, udp := v.places(t)
	before, routines := heap(), runtime.NumGoroutine()
	var talks []time.Duration
	talk := func() {
		begin := time.Now()
		v.well(t)
		talks = append(talks, time.Since(begin))
	}
	for range 2000 {
		talk()
	}
	calm := p99(talks)
	talks = nil

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	held, hold, over := make(chan struct{}, 60), make(chan struct{}), make(chan struct{})
	var came atomic.Int64
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					v.attack(ctx, int(came.Add(1)), tcp, udp, held, hold)
				}
			}
		})
	}
	var conns, streams, most int
	var grown int64
	reached := func() bool {
		s := v.tr.Stats()
		return s.BlockedConns > 0 && s.HelloRefused > 0 && s.AskRefused > 0 && s.Floods > 0
	}
	for begin := time.Now(); came.Load() < attackers || time.Since(begin) < lasting || !reached() && time.Since(begin) < transporttest.Patience; {
		talk()
		if len(talks)%100 != 0 {
			continue
		}
		open := v.tr.swarm.Conns()
		n := 0
		for _, c := range open {
			n += len(c.GetStreams())
		}
		conns, streams = max(conns, len(open)), max(streams, n)
		most, grown = max(most, runtime.NumGoroutine()), max(grown, heap()-before)
	}
	close(over)
	close(hold)
	all.Wait()
	s := v.tr.Stats()
	t.Logf("%d hostile connections; honest p99 of %d talks %v, without them %v; at most %d connections, %d streams, %d goroutines, %d MiB more; %+v",
		came.Load(), len(talks), p99(talks), calm, conns, streams, most, grown>>20, s)
	if !reached() {
		t.Errorf("the attack did not reach what it is for: %+v", s)
	}
	if conns > limits.Conns || streams > limits.Streams {
		t.Errorf("%d connections and %d streams", conns, streams)
	}
	// Attackers here take four goroutines each, connections of the victim's up
	// to 19: six and one for each stream of a stranger.
	if bound := routines + atOnce*4 + conns*(7+strangerStreams) + limits.Conns/4*2; most > bound {
		t.Errorf("%d goroutines, want at most %d", most, bound)
	}
	if grown > 64<<20 {
		t.Errorf("%d MiB more", grown>>20)
	}
	transporttest.Until(t, "all gone", func() bool {
		return len(v.tr.swarm.Conns()) <= 1 && runtime.NumGoroutine() <= routines+20
	})
	if left := heap() - before; left > 16<<20 {
		t.Errorf("%d MiB left behind", left>>20)
	}
	v.well(t)
}

func p99(ds []time.Duration) time.Duration {
	ds = slices.Sorted(slices.Values(ds))
	return ds[len(ds)*99/100]
}

// TestRapidReset opens streams and resets them at once, over TCP and QUIC, the
// next when the one before has been dealt with: so few are open at any time
// that no limit of their number is ever reached.
func TestRapidReset(t *testing.T) {
	for _, proto := range []string{"tcp", "quic"} {
		for _, member := range []bool{false, true} {
			t.Run(fmt.Sprint(proto, " member ", member), func(t *testing.T) {
				v := newVictimWith(t, Limits{}, nil, patience)
				v.well(t)
				m := newMalloryAt(t, v, proto)
				p, say := askProto, []byte("x")
				if member {
					m.link(t)
					p, say = linkProto, m.m.Hello()
				}
				before, routines := heap(), runtime.NumGoroutine()
				const enough = 20_000
				n, began := 0, time.Now()
				for ; n < enough && !m.conn.IsClosed() && time.Since(began) < transporttest.Patience; n++ {
					s, err := newStream(t.Context(), m.conn, p)
					if err != nil {
						break
					}
					_, _ = s.Write(wire.AppendFrame(nil, say))
					_ = s.SetDeadline(time.Now().Add(transporttest.Patience))
					_, _ = readVerdict(s, transport.MaxAnswer)
					_ = s.Reset()
				}
				if n == enough {
					t.Fatalf("%d streams, and it may go on: %+v", n, v.tr.Stats())
				}
				if d := time.Since(began); v.tr.Stats().Floods == 0 && time.Duration(n)*streamCost < floodTime+d {
					t.Logf("%d streams in %v are no flood: this machine is too busy for one", n, d)
					return
				}
				closed(t, m.conn)
				if s := v.tr.Stats(); s.Floods != 1 || !v.tr.gate.isShut(m.ID()) {
					t.Fatalf("not shut out: %+v", s)
				}
				transporttest.Until(t, "goroutines gone", func() bool { return runtime.NumGoroutine() < routines+20 })
				if grown := heap() - before; grown > 16<<20 {
					t.Fatalf("%d bytes more", grown)
				}
				v.well(t)
				t.Logf("ended after %d streams", n)
			})
		}
	}
}

// newMalloryAt connects over TCP or QUIC.
func newMalloryAt(t *testing.T, v *victim, proto string) *mallory {
	t.Helper()
	m := newMallory(t, v)
	if proto == "tcp" {
		return m
	}
	_ = m.conn.Close()
	pid := v.tr.h.ID()
	transporttest.Until(t, "disconnected", func() bool { return len(v.tr.swarm.ConnsToPeer(m.ID())) == 0 })
	m.Peerstore().ClearAddrs(pid)
	for _, a := range v.tr.Addrs() {
		if addr, err := decodeAddr(a); err == nil && isQUIC(addr) {
			if err := m.Connect(t.Context(), peer.AddrInfo{ID: pid, Addrs: []ma.Multiaddr{addr}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.conn = m.Network().ConnsToPeer(pid)[0]
	if !isQUIC(m.conn.RemoteMultiaddr()) {
		t.Fatal(m.conn.RemoteMultiaddr())
	}
	return m
}

// TestGarbageDatagrams sends what only looks like QUIC, and then connects over
// QUIC: the handshake must work under this Go as ever.
func TestGarbageDatagrams(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	_, udp := v.places(t)
	before, routines := heap(), runtime.NumGoroutine()
	for i := range 200 {
		sendGarbage(udp, byte(i))
	}
	m := newMalloryAt(t, v, "quic")
	m.link(t)
	transporttest.Until(t, "link", func() bool { return len(v.tr.Links()) == 1 })
	_ = m.Close()
	transporttest.Until(t, "goroutines gone", func() bool { return runtime.NumGoroutine() < routines+20 })
	if grown := heap() - before; grown > 16<<20 {
		t.Fatalf("%d bytes more", grown)
	}
}

// TestForeignVersions asks for protocols of versions that do not exist.
func TestForeignVersions(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	for _, p := range []string{"/atoll/link/0", "/atoll/link/18446744073709551615", "/atoll/bulk/0", "/atoll/ask/2", "/atoll/link/1/", ""} {
		s, err := m.conn.NewStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(transporttest.Patience))
		if err := mss.SelectProtoOrFail(p, s); err == nil {
			t.Errorf("%q was taken", p)
		}
		_ = s.Reset()
	}
	if n := len(v.tr.Links()); n != 0 {
		t.Fatalf("%d links", n)
	}
	v.well(t)
}

// TestReplay records what an honest member sends and says it again, byte by
// byte: the handshake of the connection must not take it.
func TestReplay(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	tcp, _ := v.places(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	record := make(chan []byte, 1)
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", tcp)
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
		tape := &tape{}
		_, _ = io.Copy(io.MultiWriter(out, tape), in)
		_ = out.Close()
		record <- tape.b
	}()
	proxied, err := ParseAddr(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	to := *v.Handle()
	to.Addrs = []string{proxied}
	if err := v.ftr.Send(&to, false, []byte("pay 100")); err != nil {
		t.Fatal(err)
	}
	if g := v.Next(t); string(g.Frame) != "pay 100" {
		t.Fatalf("%q", g.Frame)
	}
	v.ftr.Drop(v.Handle().GUID)
	tape := <-record
	transporttest.Until(t, "no link", func() bool { return len(v.tr.Links()) == 0 })
	opened := v.tr.Stats().LinksOpened
	c, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write(tape)
	_ = c.SetReadDeadline(time.Now().Add(transporttest.Patience))
	_, err = io.Copy(io.Discard, c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatal("the connection was kept")
	}
	v.Idle(t, 0)
	if s := v.tr.Stats(); s.LinksOpened != opened {
		t.Fatalf("%d links by a replay of %d bytes", s.LinksOpened-opened, len(tape))
	}
}

type tape struct{ b []byte }

func (t *tape) Write(b []byte) (int, error) { t.b = append(t.b, b...); return len(b), nil }

// TestEmptyFrames floods a control stream with empty frames, which end a
// writer's turn, and sends one on a bulk stream, where they mean nothing.
func TestEmptyFrames(t *testing.T) {
	v := newVictim(t, Limits{}, nil)
	m := newMallory(t, v)
	s := m.link(t)
	before, routines := heap(), runtime.NumGoroutine()
	for range 100 {
		m.write(t, s, make([]byte, 4*1000))
	}
	m.write(t, s, wire.AppendFrame(nil, []byte("done")))
	if g := v.Next(t); string(g.Frame) != "done" {
		t.Fatalf("%q", g.Frame)
	}
	if n := runtime.NumGoroutine(); n > routines+10 {
		t.Fatalf("%d goroutines more", n-routines)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Fatalf("%d bytes more", grown)
	}
	b := m.stream(t, bulkProto)
	m.write(t, b, make([]byte, 4))
	ended(t, b)
	closed(t, m.conn)
	if n := v.tr.Stats().BadFrames; n != 1 {
		t.Fatalf("%d counted", n)
	}
	v.well(t)
}

// TestStrangersAreForgotten has many keys come, ask, be refused and go: no
// table that names peers may keep them.
func TestStrangersAreForgotten(t *testing.T) {
	h := transporttest.NewHost("lagoon", 1)
	v := newVictim(t, Limits{LocalAsks: 10_000}, h)
	v.well(t)
	tcp, _ := v.places(t)
	const strangers = 150
	for range strangers {
		conn, err := net.Dial("tcp", tcp)
		if err != nil {
			t.Fatal(err)
		}
		c := &rawConn{Conn: conn}
		_ = conn.SetDeadline(time.Now().Add(transporttest.Patience))
		if err := c.secure(t.Context(), v.tr.h.ID()); err != nil {
			t.Fatal(err)
		}
		if err := c.multiplex(); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{string(askProto), string(linkProto)} {
			s, err := c.open(t.Context(), p, wire.AppendFrame(nil, []byte("hello?")))
			if err != nil {
				t.Fatal(err)
			}
			_ = s.CloseWrite()
			_, _ = io.Copy(io.Discard, s)
		}
		c.close()
	}
	if s := v.tr.Stats(); s.Asked != strangers || s.HelloRefused != strangers {
		t.Fatalf("%d asked, %d refused", s.Asked, s.HelloRefused)
	}
	transporttest.Until(t, "gone", func() bool { return len(v.tr.swarm.Conns()) == 1 })
	v.tr.sweepOnce(time.Now().Add(time.Hour))
	tr := v.tr
	tr.mu.Lock()
	tables := map[string]int{"remotes": len(tr.remotes), "conns": len(tr.conns)}
	tr.mu.Unlock()
	tr.gate.mu.Lock()
	tables["given"], tables["out"] = len(tr.gate.given), len(tr.gate.out)
	tr.gate.mu.Unlock()
	tr.blocks.meter.mu.Lock()
	tables["metered"] = len(tr.blocks.meter.paid)
	tr.blocks.meter.mu.Unlock()
	tr.asks.mu.Lock()
	tables["askers"] = len(tr.asks.full)
	tr.asks.mu.Unlock()
	for name, n := range tables {
		if n > 1 { // the friend
			t.Errorf("%s: %d", name, n)
		}
	}
}
