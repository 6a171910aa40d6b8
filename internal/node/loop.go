package node

import (
	"context"
	"sync"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
)

// errStopped is what waiting callers get when the node ends under them.
var errStopped error = &Fault{FaultCode: "not_running", Text: "the node has stopped"}

// errStopping is what they get who come while it ends in good order.
var errStopping error = &Fault{FaultCode: "not_running", Text: "the node is shutting down"}

// Bounds of the loop's queues. What keeps the ring comes before other control
// frames, and these before bulk frames, so that a heartbeat waits neither behind
// the requests of an overloaded node nor behind a window of blocks.
const (
	urgentQueue  = 1024 // frames of the class kbr.Control waiting
	controlQueue = 4096 // other control frames and commands waiting; see backlog for the bytes of both
	bulkQueue    = 24   // bulk frames waiting, of at most transport.MaxBulk each
)

// performer carries out the effects of a machine other than answers to
// commands. Its methods are called by the loop and must not block.
type performer interface {
	send(e machine.Effect)
	store(e machine.Effect)
	load(e machine.Effect)
	save(e machine.Effect)
	trace(e machine.Effect)
	halt(err error)
}

// call is work that somebody outside wants done between two Steps: reading the
// machine's state, or starting it.
type call func(now machine.Time, wall int64, out []machine.Effect) []machine.Effect

// loop owns a machine: one goroutine feeds it events and performs its effects.
type loop struct {
	m    machine.Machine
	self id.GUID
	p    performer
	wall func() int64 // Unix ms

	urgent  chan frame
	control chan frame
	bulk    chan frame
	calls   chan call
	backlog *backlog // of control frames

	doneMu   sync.Mutex
	done     []machine.Event // completions: as many as effects in flight
	doneWake chan struct{}

	pendMu  sync.Mutex
	pending map[uint64]*pending
	nextID  uint64
	ended   bool
	idle    chan struct{} // made by rest, closed when nothing is pending any more

	stop    chan struct{}
	stopped chan struct{}

	// The goroutine's own.
	loopback []machine.Event // Sends to oneself
	last     machine.Time
	effects  []machine.Effect
}

// frame is a decoded message, or a command, on its way to the machine.
type frame struct {
	machine.Event
	size int // bytes of the message as it came; a command has none
}

type pending struct {
	reply chan reply
	note  func(any)
}

type reply struct {
	body any
	err  error
}

func newLoop(m machine.Machine, self id.GUID, p performer, wall func() int64) *loop {
	return &loop{
		m: m, self: self, p: p, wall: wall,
		urgent:   make(chan frame, urgentQueue),
		control:  make(chan frame, controlQueue),
		bulk:     make(chan frame, bulkQueue),
		calls:    make(chan call),
		backlog:  newBacklog(),
		doneWake: make(chan struct{}, 1),
		pending:  make(map[uint64]*pending),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
}

// start runs the loop until close.
func (l *loop) start() { go l.run() }

// close ends the loop, fails all waiting callers and waits for the goroutine.
func (l *loop) close() {
	close(l.stop)
	l.backlog.close()
	<-l.stopped
	l.pendMu.Lock()
	defer l.pendMu.Unlock()
	l.ended = true
	for cmd, p := range l.pending {
		p.reply <- reply{err: errStopped}
		delete(l.pending, cmd)
	}
}

// deliver hands over a decoded message of size bytes. It blocks while the queue is
// full, or too much of this member waits: the stream it came from is then not read,
// which is the back-pressure.
func (l *loop) deliver(from *id.Handle, msg machine.Message, size int, bulk bool) {
	q := l.bulk
	if !bulk {
		urgent := pastry.ClassOf(msg) == kbr.Control
		if !l.backlog.enter(from.GUID, size, urgent) {
			return
		}
		if q = l.control; urgent {
			q = l.urgent
		}
	}
	select {
	case q <- frame{machine.Event{Kind: machine.Receive, From: from, Msg: msg}, size}:
	case <-l.stop:
	}
}

// complete hands over the end of a Store or Load. It never blocks.
func (l *loop) complete(ev machine.Event) {
	l.doneMu.Lock()
	l.done = append(l.done, ev)
	l.doneMu.Unlock()
	select {
	case l.doneWake <- struct{}{}:
	default:
	}
}

// command asks the machine for something and waits for its reply. note, if not
// nil, gets the progress notes; it is called by the loop and must not block.
func (l *loop) command(ctx context.Context, body any, note func(any)) (any, error) {
	p := &pending{reply: make(chan reply, 1), note: note}
	l.pendMu.Lock()
	switch {
	case l.ended:
		l.pendMu.Unlock()
		return nil, errStopped
	case l.idle != nil:
		l.pendMu.Unlock()
		return nil, errStopping
	}
	cmd := l.pend(p)
	l.pendMu.Unlock()

	select {
	case l.control <- frame{Event: machine.Event{Kind: machine.Command, ID: cmd, Body: body}}:
	case <-ctx.Done():
		l.forget(cmd)
		return nil, ctx.Err()
	case <-l.stop:
		l.forget(cmd)
		return nil, errStopped
	}
	select {
	case r := <-p.reply:
		return r.body, r.err
	case <-ctx.Done():
		l.forget(cmd)
		return nil, ctx.Err()
	}
}

// pend numbers a command. The caller holds pendMu.
func (l *loop) pend(p *pending) uint64 {
	l.nextID++
	l.pending[l.nextID] = p
	return l.nextID
}

func (l *loop) forget(cmd uint64) {
	l.pendMu.Lock()
	l.unpend(cmd)
	l.pendMu.Unlock()
}

// unpend takes out a command, if it is there. The caller holds pendMu.
func (l *loop) unpend(cmd uint64) {
	if _, ok := l.pending[cmd]; !ok {
		return
	}
	delete(l.pending, cmd)
	if l.idle != nil && len(l.pending) == 0 {
		close(l.idle)
	}
}

// rest gives the machine a last command, lets no further one in, and waits until
// all have been answered, or ctx ends.
func (l *loop) rest(ctx context.Context, last any) {
	l.pendMu.Lock()
	if l.ended || l.idle != nil {
		l.pendMu.Unlock()
		return
	}
	l.idle = make(chan struct{})
	cmd := l.pend(&pending{reply: make(chan reply, 1)})
	l.pendMu.Unlock()
	select {
	case l.control <- frame{Event: machine.Event{Kind: machine.Command, ID: cmd, Body: last}}:
	case <-ctx.Done():
		return
	case <-l.stop:
		return
	}
	select {
	case <-l.idle:
	case <-ctx.Done():
	case <-l.stop:
	}
}

// do runs f between two Steps and waits for it.
func (l *loop) do(f call) error {
	ran := make(chan struct{})
	wrapped := func(now machine.Time, wall int64, out []machine.Effect) []machine.Effect {
		defer close(ran)
		return f(now, wall, out)
	}
	select {
	case l.calls <- wrapped:
		<-ran
		return nil
	case <-l.stop:
		return errStopped
	}
}

func (l *loop) now() machine.Time {
	l.last = max(l.last, bootClock())
	return l.last
}

func (l *loop) run() {
	defer close(l.stopped)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	turn := 0
	for {
		if l.stopping() {
			return
		}
		l.drainDone()
		l.drainLoopback()
		now := l.now()
		if l.m.Wake() <= now {
			l.step(machine.Event{Kind: machine.Tick})
			continue
		}
		if len(l.loopback) > 0 {
			continue
		}
		// The urgent first, but half of the events may be others; control before
		// bulk, but one in sixteen may be bulk: none starves.
		turn++
		if turn%2 != 0 {
			select {
			case f := <-l.urgent:
				l.take(f)
				continue
			default:
			}
		}
		if turn%16 != 0 {
			select {
			case f := <-l.control:
				l.take(f)
				continue
			case f := <-l.calls:
				l.perform(f(l.now(), l.wall(), l.effects[:0]))
				continue
			default:
			}
		}
		timer.Reset(untilWake(l.m.Wake(), now))
		select {
		case <-l.stop:
			return
		case <-l.doneWake:
		case f := <-l.urgent:
			l.take(f)
		case f := <-l.control:
			l.take(f)
		case f := <-l.calls:
			l.perform(f(l.now(), l.wall(), l.effects[:0]))
		case f := <-l.bulk:
			l.step(f.Event)
		case <-timer.C:
		}
	}
}

func (l *loop) stopping() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// untilWake is the real time to sleep: at most an hour, so that a clock that
// jumped is looked at again.
func untilWake(wake, now machine.Time) time.Duration {
	if wake == machine.Never || wake.Sub(now) > machine.Hour {
		return time.Hour
	}
	return time.Duration(wake.Sub(now)) * time.Microsecond
}

func (l *loop) drainDone() {
	l.doneMu.Lock()
	done := l.done
	l.done = nil
	l.doneMu.Unlock()
	for _, ev := range done {
		l.step(ev)
	}
}

// drainLoopback delivers the Sends to oneself that were waiting when it began;
// what they cause waits for the next round, so the network is not starved.
func (l *loop) drainLoopback() {
	waiting := l.loopback
	l.loopback = nil
	for _, ev := range waiting {
		l.step(ev)
	}
}

// take steps a control frame or a command.
func (l *loop) take(f frame) {
	if f.Kind == machine.Receive {
		l.backlog.leave(f.From.GUID, f.size)
	}
	l.step(f.Event)
}

func (l *loop) step(ev machine.Event) {
	ev.Wall = l.wall()
	l.perform(l.m.Step(l.now(), ev, l.effects[:0]))
}

// perform carries out effects. The slice is reused for the next Step, so what
// outlives this call is copied.
func (l *loop) perform(effects []machine.Effect) {
	for i := range effects {
		e := effects[i]
		switch e.Kind {
		case machine.Send:
			if e.To.GUID == l.self {
				l.loopback = append(l.loopback, machine.Event{Kind: machine.Receive, From: e.To, Msg: e.Msg})
				continue
			}
			l.p.send(e)
		case machine.Store:
			l.p.store(e)
		case machine.Load:
			l.p.load(e)
		case machine.Save:
			l.p.save(e)
		case machine.Reply, machine.Note:
			l.answer(e)
		case machine.Trace:
			l.p.trace(e)
		case machine.Halt:
			l.p.halt(e.Err)
		}
	}
	clear(effects) // drop references to blocks
	l.effects = effects
}

func (l *loop) answer(e machine.Effect) {
	l.pendMu.Lock()
	p := l.pending[e.ID]
	if p != nil && e.Kind == machine.Reply {
		p.reply <- reply{e.Body, e.Err} // has room for it
		l.unpend(e.ID)
	}
	l.pendMu.Unlock()
	switch {
	case p == nil || e.Kind == machine.Reply: // the caller has gone, or has it
	case p.note != nil:
		p.note(e.Body)
	}
}
