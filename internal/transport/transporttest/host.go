// Package transporttest is the conformance suite that every implementation of
// transport.Transport passes, and a Host to drive transports with in tests.
package transporttest

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/wire"
)

// Patience is how long tests wait for what must come: until it may be taken for
// missing, on a machine that has much else to do.
const Patience = time.Minute

// Got is one frame as a Host received it.
type Got struct {
	From  *id.Handle
	Bulk  bool
	Frame []byte
}

// Host is a transport.Host for tests. Nodes of the same Pool admit each
// other; a GUID is the key itself.
type Host struct {
	Pool string
	Key  ed25519.PrivateKey
	// Refuse, if set, is asked about peers before they are admitted.
	Refuse func(key [32]byte) error
	// OnReceive, if set, gets frames in place of the channel.
	OnReceive func(from *id.Handle, bulk bool, frame []byte)
	// OnAsk, if set, answers questions; else they are echoed.
	OnAsk func(ctx context.Context, key [32]byte, question []byte) ([]byte, error)

	mu     sync.Mutex
	handle *id.Handle
	hello  []byte // sent in place of a true one, if set

	got  chan Got
	done chan struct{}
	once sync.Once
}

var _ transport.Host = (*Host)(nil)

// NewHost makes a Host whose key comes from seed.
func NewHost(pool string, seed byte) *Host {
	key := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	h := &Host{Pool: pool, Key: key, got: make(chan Got, 1024), done: make(chan struct{})}
	h.SetHandle(1, nil)
	return h
}

// SetHandle makes the handle that the host tells, after its transport has
// said its addresses.
func (h *Host) SetHandle(epoch uint32, addrs []string) *id.Handle {
	pub := [32]byte(h.Key.Public().(ed25519.PublicKey))
	n := &id.Handle{GUID: id.GUID(pub), Key: pub, Epoch: epoch, Addrs: addrs}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handle = n
	return n
}

// SetHello makes the host send b in handshakes, whatever it is.
func (h *Host) SetHello(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hello = b
}

// Handle returns the current handle.
func (h *Host) Handle() *id.Handle {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handle
}

// Hello implements transport.Host.
func (h *Host) Hello() []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hello != nil {
		return h.hello
	}
	var w wire.Writer
	w.Bytes8([]byte(h.Pool))
	n := *h.handle
	if len(n.Addrs) == 0 {
		n.Addrs = []string{"-"}
	}
	w.Handle(&n)
	return w.B
}

// Admit implements transport.Host.
func (h *Host) Admit(key [32]byte, hello []byte) (*id.Handle, error) {
	r := wire.NewReader(hello)
	pool, n := string(r.Bytes8(64)), r.Handle()
	if err := r.Close(); err != nil {
		return nil, err
	}
	if h.Refuse != nil {
		if err := h.Refuse(key); err != nil {
			return nil, err
		}
	}
	if pool != h.Pool {
		return nil, fmt.Errorf("wrong pool: %s is not %s", pool, h.Pool)
	}
	if n.Key != key || n.GUID != id.GUID(key) {
		return nil, errors.New("that is another's handle")
	}
	return n, nil
}

// Receive implements transport.Host.
func (h *Host) Receive(from *id.Handle, bulk bool, frame []byte) {
	if h.OnReceive != nil {
		h.OnReceive(from, bulk, frame)
		return
	}
	select {
	case h.got <- Got{from, bulk, frame}:
	case <-h.done:
	}
}

// Answer implements transport.Host.
func (h *Host) Answer(ctx context.Context, key [32]byte, question []byte) ([]byte, error) {
	if h.OnAsk != nil {
		return h.OnAsk(ctx, key, question)
	}
	return append([]byte("echo "), question...), nil
}

// Done is closed by Stop; a Receive of one's own must return then.
func (h *Host) Done() <-chan struct{} { return h.done }

// Stop lets blocked Receive calls return.
func (h *Host) Stop() { h.once.Do(func() { close(h.done) }) }

// Next waits for a frame.
func (h *Host) Next(t testing.TB) Got {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case g := <-h.got:
		return g
	case <-timer.C:
		t.Fatalf("no frame within %v", Patience)
		return Got{}
	}
}

// Idle checks that no frame comes within d.
func (h *Host) Idle(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case g := <-h.got:
		t.Fatalf("unexpected frame %q", clip(g.Frame))
	case <-timer.C:
	}
}

// Until waits for a condition.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }
