package acceptance

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
)

// TestThroughput puts one large file through one member of eight and reads it
// through another, beside a plain single-stream TLS copy with fsync in the same
// run: to three files (put, k = 3: three copies share this disk) and to one
// (get). A put returns when two copies are synced; the time until all three are
// there is printed as well, and the get begins after it. It prints the figures and
// judges none: they belong to a machine.
func TestThroughput(t *testing.T) {
	size := int64(16 << 20)
	if *full {
		size = 1 << 30
	}
	rnd := rand.New(rand.NewPCG(21, 22))
	p := newPool(t, 8)
	in, out := filepath.Join(p.dir, "large"), filepath.Join(p.dir, "large.out")
	writeFile(t, in, size, rnd)

	three := tlsCopy(t, in, p.dir, 3)
	begin := time.Now()
	var put api.PutResult
	p.ok(0, &put, "put", in)
	putTook := time.Since(begin)
	p.allFull(0, 5*time.Minute)
	fullTook := time.Since(begin)

	one := tlsCopy(t, in, p.dir, 1)
	begin = time.Now()
	p.ok(5, nil, "get", put.Link, "-o", out)
	getTook := time.Since(begin)

	for i := range p.procs {
		p.stop(i)
	}
	mib := float64(size) / (1 << 20)
	t.Logf("%.0f MiB, 8 processes, k = 3, one disk:", mib)
	t.Logf("put %.0f MiB/s; TLS copy to three files with fsync %.0f MiB/s; ratio %.2f", mib/putTook.Seconds(), mib/three.Seconds(), three.Seconds()/putTook.Seconds())
	t.Logf("put, to three copies, %.0f MiB/s; ratio %.2f", mib/fullTook.Seconds(), three.Seconds()/fullTook.Seconds())
	t.Logf("get %.0f MiB/s; TLS copy to one file with fsync %.0f MiB/s; ratio %.2f", mib/getTook.Seconds(), mib/one.Seconds(), one.Seconds()/getTook.Seconds())
	for i, pr := range p.procs {
		t.Logf("node %d: peak resident %d MiB, CPU %.1f s", i, pr.peakKB>>10, pr.cpu.Seconds())
	}
}

// TestSmallValues puts and gets values of 4 KiB with sixteen clients.
func TestSmallValues(t *testing.T) {
	num := 64
	if *full {
		num = 1000
	}
	p := newPool(t, 8)
	values := make([]string, num)
	rnd := rand.New(rand.NewPCG(23, 24))
	for i := range values {
		values[i] = filepath.Join(p.dir, fmt.Sprintf("value-%d", i))
		writeFile(t, values[i], 4096, rnd)
	}
	before := p.cpu()
	guids := make([]string, num)
	p.timed("puts", num, func(i int) error {
		b, err := os.ReadFile(values[i])
		if err != nil {
			return err
		}
		r, err := p.client(i%8).DHTPut(t.Context(), api.DHTPutRequest{Raw: b})
		guids[i] = r.GUID.String()
		return err
	})
	between := p.cpu()
	p.timed("gets", num, func(i int) error {
		want, err := os.ReadFile(values[i])
		if err != nil {
			return err
		}
		r, err := p.client((i+3)%8).DHTGet(t.Context(), api.DHTGetRequest{GUID: mustGUID(t, guids[i])})
		if err == nil && !slices.Equal(r.Value, want) {
			err = fmt.Errorf("value %d came back wrong", i)
		}
		return err
	})
	after := p.cpu()
	t.Logf("CPU of all eight nodes: %.2f ms a put, %.2f ms a get", ms(between-before)/float64(num), ms(after-between)/float64(num))
}

// clients is how many ask at once in TestSmallValues.
const clients = 16

// timed does num operations by sixteen clients and prints rate and percentiles.
func (p *pool) timed(what string, num int, op func(i int) error) {
	p.t.Helper()
	took := make([]time.Duration, num)
	var next sync.Mutex
	at := 0
	var all sync.WaitGroup
	begin := time.Now()
	for range clients {
		all.Go(func() {
			for {
				next.Lock()
				i := at
				at++
				next.Unlock()
				if i >= num {
					return
				}
				start := time.Now()
				if err := op(i); err != nil {
					p.t.Errorf("%s %d: %v", what, i, err)
				}
				took[i] = time.Since(start)
			}
		})
	}
	all.Wait()
	span := time.Since(begin)
	slices.Sort(took)
	p.t.Logf("%d %s of 4 KiB, %d clients, 8 processes, k = 3: %.0f/s, p50 %s, p99 %s",
		num, what, clients, float64(num)/span.Seconds(), took[num/2], took[num*99/100])
}

// cpu is the processor time that all running members have used, from /proc.
func (p *pool) cpu() (sum time.Duration) {
	p.t.Helper()
	for _, pr := range p.procs {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pr.cmd.Process.Pid))
		if err != nil {
			p.t.Fatalf("processor times come from /proc: %v", err)
		}
		fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		var user, system int64
		_, _ = fmt.Sscan(fields[11], &user)
		_, _ = fmt.Sscan(fields[12], &system)
		sum += time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
	}
	return sum
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// tlsCopy sends a file over one TLS stream on loopback to a process-internal
// receiver that writes num files and syncs them.
func tlsCopy(t testing.TB, path, dir string, num int) time.Duration {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	received := make(chan error, 1)
	go func() { received <- receive(l, dir, num) }()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	begin := time.Now()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a yardstick on loopback
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{in}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-received; err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

func receive(l net.Listener, dir string, num int) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	var files []*os.File
	var writers []io.Writer
	for i := range num {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("tls-copy-%d", i)))
		if err != nil {
			return err
		}
		files, writers = append(files, f), append(writers, f)
	}
	if _, err := io.CopyBuffer(io.MultiWriter(writers...), struct{ io.Reader }{c}, make([]byte, 1<<20)); err != nil {
		return err
	}
	for _, f := range files {
		if err := f.Sync(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := os.Remove(f.Name()); err != nil {
			return err
		}
	}
	return nil
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(crand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
