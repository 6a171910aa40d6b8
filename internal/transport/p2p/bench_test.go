package p2p

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"atoll.example/atoll/internal/cputime"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

// couple starts two nodes; frames that reach each go to the given functions.
func couple(b *testing.B, c Config, ra, rb func([]byte)) (ha, hb *transporttest.Host, ta, tb *Transport) {
	b.Helper()
	ha, hb = transporttest.NewHost("bench", 1), transporttest.NewHost("bench", 2)
	ha.OnReceive = func(_ *id.Handle, _ bool, f []byte) { ra(f) }
	hb.OnReceive = func(_ *id.Handle, _ bool, f []byte) { rb(f) }
	c.Loopback = true
	ta, tb = start(b, ha, c), start(b, hb, c)
	ha.SetHandle(1, ta.Addrs())
	hb.SetHandle(1, tb.Addrs())
	b.Cleanup(func() {
		ha.Stop()
		hb.Stop()
		_ = ta.Close()
		_ = tb.Close()
	})
	return ha, hb, ta, tb
}

// BenchmarkControl measures requests and answers of 100 bytes over one
// control stream, alone and 64 at a time.
func BenchmarkControl(b *testing.B) {
	for name, window := range map[string]int{"1": 1, "64": 64} {
		b.Run("window="+name, func(b *testing.B) {
			back := make(chan struct{}, window)
			var ha, hb *transporttest.Host
			var ta, tb *Transport
			ha, hb, ta, tb = couple(b, Config{NoQUIC: true}, func([]byte) { back <- struct{}{} },
				func(f []byte) { _ = tb.Send(ha.Handle(), false, f) })
			ask := func() {
				if err := ta.Send(hb.Handle(), false, make([]byte, 100)); err != nil {
					b.Fatal(err)
				}
			}
			ask()
			<-back
			used := cputime.Used()
			b.ResetTimer()
			for i := range b.N {
				if i >= window {
					<-back
				}
				ask()
			}
			for range min(window, b.N) {
				<-back
			}
			b.StopTimer()
			b.ReportMetric(float64(cputime.Used()-used)/float64(b.N)/1e3, "cpu-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// BenchmarkBulk sends blocks of 1 MiB over loopback, and the same bytes over
// one plain TLS 1.3 stream beside it.
func BenchmarkBulk(b *testing.B) {
	for name, c := range map[string]Config{"tcp": {NoQUIC: true}, "quic": {Listen: []string{"/ip4/127.0.0.1/udp/0/quic-v1"}}} {
		b.Run(name, func(b *testing.B) {
			const size = 1 << 20
			got := make(chan struct{}, 64)
			_, hb, ta, _ := couple(b, c, func([]byte) {}, func([]byte) { got <- struct{}{} })
			frame := make([]byte, size)
			_, _ = rand.Read(frame)
			send := func() {
				if err := ta.Send(hb.Handle(), true, frame); err != nil {
					b.Fatal(err)
				}
			}
			for range 16 {
				send()
				<-got
			}
			used := cputime.Used()
			b.SetBytes(size)
			b.ResetTimer()
			const window = 16
			for i := range b.N {
				if i >= window {
					<-got
				}
				send()
			}
			for range min(window, b.N) {
				<-got
			}
			b.StopTimer()
			ours, oursCPU := b.Elapsed(), cputime.Used()-used
			plain, plainCPU := plainTLS(b, frame, b.N)
			b.ReportMetric(float64(oursCPU.Microseconds())/1e3/float64(b.N), "cpu-ms/MiB")
			b.ReportMetric(float64(plainCPU.Microseconds())/1e3/float64(b.N), "tls-cpu-ms/MiB")
			b.ReportMetric(plain.Seconds()/ours.Seconds(), "x-of-tls")
			b.ReportMetric(float64(oursCPU)/float64(plainCPU), "x-cpu-of-tls")
		})
	}
}

// plainTLS sends n blocks over a bare TLS stream and returns the wall and
// processor time it took. Each block is read into memory of its own, as a
// receiver of frames must.
func plainTLS(b *testing.B, frame []byte, n int) (wall, used time.Duration) {
	b.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		b.Fatal(err)
	}
	cfg := &tls.Config{
		Certificates:       []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	done := make(chan error, 1)
	const warm = 16
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = c.Close() }()
		for i := range warm + n {
			if _, err := io.ReadFull(c, make([]byte, len(frame))); err != nil {
				done <- err
				return
			}
			if i == warm-1 || i == warm+n-1 {
				done <- nil
			}
		}
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer func(c net.Conn) { _ = c.Close() }(c)
	write := func(n int) {
		for range n {
			if _, err := c.Write(frame); err != nil {
				b.Fatal(err)
			}
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
	write(warm)
	began, u := time.Now(), cputime.Used()
	write(n)
	return time.Since(began), cputime.Used() - u
}

// BenchmarkQueue is what one Send costs the caller.
func BenchmarkQueue(b *testing.B) {
	_, hb, ta, _ := couple(b, Config{NoQUIC: true}, func([]byte) {}, func([]byte) {})
	f := make([]byte, 64)
	to := hb.Handle()
	b.ReportAllocs()
	for b.Loop() {
		for ta.Send(to, false, f) == transport.ErrQueueFull {
			<-time.After(100 * time.Microsecond)
		}
	}
}
