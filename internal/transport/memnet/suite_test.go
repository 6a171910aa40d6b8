package memnet

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type net struct{ *Network }

func (n net) Start(t testing.TB, h *transporttest.Host, addrs []string) transport.Transport {
	t.Helper()
	addr := ""
	if addrs != nil {
		addr = addrs[0]
	}
	tr, err := n.New([32]byte(h.Key.Public().(ed25519.PublicKey)), addr, h)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func (n net) Nowhere() string { return "mem:0" }

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(queued time.Duration) transporttest.Net {
		n := NewNetwork(1)
		if queued > 0 {
			n.queued = queued
		}
		return net{n}
	})
}

func two(t *testing.T, n net) (a, b *transporttest.Host, ta, tb transport.Transport) {
	a, b = transporttest.NewHost("p", 1), transporttest.NewHost("p", 2)
	ta, tb = n.Start(t, a, nil), n.Start(t, b, nil)
	a.SetHandle(1, ta.Addrs())
	b.SetHandle(1, tb.Addrs())
	t.Cleanup(func() {
		a.Stop()
		b.Stop()
		_ = ta.Close()
		_ = tb.Close()
	})
	return a, b, ta, tb
}

func TestCut(t *testing.T) {
	n := net{NewNetwork(1)}
	a, b, ta, tb := two(t, n)
	if err := ta.Send(b.Handle(), false, []byte("one")); err != nil {
		t.Fatal(err)
	}
	b.Next(t)
	n.Cut(ta.Addrs()[0], tb.Addrs()[0])
	if len(ta.Links()) != 0 || len(tb.Links()) != 0 {
		t.Fatal("links over a cut")
	}
	if err := ta.Send(b.Handle(), false, []byte("two")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tb.Ask(t.Context(), a.Handle(), []byte("q")); !errors.Is(err, transport.ErrUnreachable) {
		t.Fatal(err)
	}
	n.Mend(tb.Addrs()[0], ta.Addrs()[0])
	if g := b.Next(t); string(g.Frame) != "two" {
		t.Fatalf("%q", g.Frame)
	}
}

func TestLoss(t *testing.T) {
	n := net{NewNetwork(7)}
	_, b, ta, _ := two(t, n)
	var got, ends atomic.Int32
	b.OnReceive = func(_ *id.Handle, _ bool, f []byte) {
		if string(f) == "end" {
			ends.Add(1)
		} else {
			got.Add(1)
		}
	}
	n.SetLoss(0.5)
	const all = 400
	for i := range all {
		if err := ta.Send(b.Handle(), false, fmt.Append(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	transporttest.Until(t, "an end", func() bool {
		_ = ta.Send(b.Handle(), false, []byte("end"))
		return ends.Load() > 0
	})
	if g := got.Load(); g < all/4 || g > 3*all/4 {
		t.Fatalf("%d of %d frames arrived", g, all)
	}
}

func TestAddressTaken(t *testing.T) {
	n := net{NewNetwork(1)}
	_, b, ta, _ := two(t, n)
	if _, err := n.New(b.Handle().Key, ta.Addrs()[0], b); !errors.Is(err, ErrInUse) {
		t.Fatal(err)
	}
}
