package node

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type word string

func (word) Kind() uint8             { return 250 }
func (word) AppendBody(*wire.Writer) {}

// parrot answers a command through a Send to itself, a Store and a timer, one
// after the other: every way in which a machine waits.
type parrot struct {
	self *id.Handle
	wake machine.Time
	cmd  uint64
	said string
}

func (p *parrot) Wake() machine.Time { return p.wake }

func (p *parrot) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	switch ev.Kind {
	case machine.Command:
		p.cmd = ev.ID
		return append(out,
			machine.Effect{Kind: machine.Note, ID: ev.ID, Body: 1},
			machine.Effect{Kind: machine.Send, To: p.self, Msg: word(ev.Body.(string))})
	case machine.Receive:
		p.said = string(ev.Msg.(word))
		return append(out, machine.Effect{Kind: machine.Store, ID: 7, Body: store.Batch{}})
	case machine.Done:
		p.wake = now.Add(machine.Millisecond)
	case machine.Tick:
		p.wake = machine.Never
		return append(out, machine.Effect{Kind: machine.Reply, ID: p.cmd, Body: p.said, Err: ev.Err})
	}
	return out
}

type echoDisk struct{ l *loop }

func (d *echoDisk) send(machine.Effect) {}
func (d *echoDisk) store(e machine.Effect) {
	d.l.complete(machine.Event{Kind: machine.Done, ID: e.ID})
}
func (d *echoDisk) load(machine.Effect)  {}
func (d *echoDisk) save(machine.Effect)  {}
func (d *echoDisk) trace(machine.Effect) {}
func (d *echoDisk) halt(error)           {}

// teller notes what it receives, once released.
type teller struct {
	free  chan struct{}
	heard []machine.Message
}

func (*teller) Wake() machine.Time { return machine.Never }

func (t *teller) Step(_ machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	<-t.free
	t.heard = append(t.heard, ev.Msg)
	return out
}

// What keeps the ring does not wait behind requests, nor do they wait for its end.
func TestLoopHearsBeatsFirst(t *testing.T) {
	const n = 100
	m := &teller{free: make(chan struct{})}
	l := newLoop(m, id.GUID{}, &echoDisk{}, systemClock)
	from := &id.Handle{GUID: id.FromPrefix("65a1fc")}
	for range n {
		l.deliver(from, word("request"), 300, false)
	}
	for range n {
		l.deliver(from, &pastry.Beat{}, 30, false)
	}
	l.start()
	close(m.free)
	for all := false; !all; {
		if err := l.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
			all = len(m.heard) == 2*n
			return out
		}); err != nil {
			t.Fatal(err)
		}
	}
	l.close()
	beats := 0
	for _, msg := range m.heard[:n] {
		if _, ok := msg.(*pastry.Beat); ok {
			beats++
		}
	}
	if beats < n/2-1 || beats == n {
		t.Errorf("%d beats among the first %d", beats, n)
	}
}

func startParrot() *loop {
	self := &id.Handle{GUID: id.FromPrefix("65a1fc")}
	d := &echoDisk{}
	d.l = newLoop(&parrot{self: self, wake: machine.Never}, self.GUID, d, systemClock)
	d.l.start()
	return d.l
}

func TestLoopCarriesACommandToItsReply(t *testing.T) {
	l := startParrot()
	defer l.close()
	notes := 0
	got, err := l.command(context.Background(), "hello", func(any) { notes++ })
	if err != nil || got != "hello" || notes != 1 {
		t.Fatalf("command = %v, %v with %d notes; want hello with 1", got, err, notes)
	}
}

func TestLoopCloseFreesWaitingCallers(t *testing.T) {
	self := &id.Handle{}
	l := newLoop(silent{}, self.GUID, &echoDisk{}, systemClock)
	l.start()
	failed := make(chan error, 1)
	go func() {
		_, err := l.command(context.Background(), "anyone?", nil)
		failed <- err
	}()
	// The command is in once the loop has taken it: a call after it sees that.
	for waiting := 0; waiting == 0; {
		l.pendMu.Lock()
		waiting = len(l.pending)
		l.pendMu.Unlock()
	}
	l.close()
	if err := <-failed; !errors.Is(err, errStopped) {
		t.Fatalf("waiting caller got %v, want errStopped", err)
	}
	if _, err := l.command(context.Background(), "late", nil); !errors.Is(err, errStopped) {
		t.Fatalf("late caller got %v, want errStopped", err)
	}
}

// A node that is closed before it has joined frees who waits for that.
func TestCloseFreesWhoWaitsForReady(t *testing.T) {
	n := &Node{loop: newLoop(silent{}, id.GUID{}, &echoDisk{}, systemClock)}
	n.loop.start()
	n.loop.close()
	if err := n.Ready(t.Context()); !errors.Is(err, errStopped) {
		t.Fatalf("got %v, want errStopped", err)
	}
}

type silent struct{}

func (silent) Wake() machine.Time { return machine.Never }
func (silent) Step(_ machine.Time, _ machine.Event, out []machine.Effect) []machine.Effect {
	return out
}

// A loop that is to rest lets nobody in, and waits for those under way.
func TestLoopRests(t *testing.T) {
	l := newLoop(silent{}, id.GUID{}, &echoDisk{}, systemClock)
	l.start()
	defer l.close()
	ctx, cancel := context.WithCancel(t.Context())
	waits := make(chan error, 1)
	go func() {
		_, err := l.command(ctx, "x", nil)
		waits <- err
	}()
	pending := func() int {
		l.pendMu.Lock()
		defer l.pendMu.Unlock()
		return len(l.pending)
	}
	for pending() == 0 {
		runtime.Gosched()
	}
	over, end := context.WithCancel(t.Context())
	rests := make(chan struct{})
	go func() {
		l.rest(over, "last")
		close(rests)
	}()
	for pending() < 2 {
		runtime.Gosched()
	}
	if _, err := l.command(t.Context(), "y", nil); !errors.Is(err, errStopping) {
		t.Fatalf("got %v, want errStopping", err)
	}
	l.answer(machine.Effect{Kind: machine.Reply, ID: 2})
	select {
	case <-rests:
		t.Fatal("a caller still waits")
	default:
	}
	cancel()
	<-waits
	<-rests
	end()
}

func TestLoopCallerMayLeave(t *testing.T) {
	l := newLoop(silent{}, id.GUID{}, &echoDisk{}, systemClock)
	l.start()
	defer l.close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.command(ctx, "x", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want context.Canceled", err)
	}
	l.pendMu.Lock()
	defer l.pendMu.Unlock()
	if len(l.pending) != 0 {
		t.Fatal("a caller that left is still waited for")
	}
}
