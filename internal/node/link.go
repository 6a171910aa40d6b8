package node

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/stack"
	"atoll.example/atoll/internal/transport"
)

// errNotYet refuses links until this node knows who it is.
var errNotYet = errors.New("not a member yet")

// link is what the transport calls: it decides who is let in, decodes what
// comes, and answers those who want to join.
type link struct {
	wall    func() int64
	deliver func(from *id.Handle, msg machine.Message, size int, bulk bool)
	answer  func(ctx context.Context, key [32]byte, question []byte) ([]byte, error)
	met     func(*id.Handle)
	barred  func(ident.Chain) error // the roster's CheckChain

	mu     sync.Mutex
	who    *identity // nil until a member
	self   *id.Handle
	digest [32]byte

	badFrames atomic.Int64
	badHellos atomic.Int64
}

var _ transport.Host = (*link)(nil)

// open lets members in from now on.
func (l *link) open(who *identity, self *id.Handle) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.who, l.self = who, self
}

// move gives this node's handle other addresses and returns the new one; nil if
// there is no handle yet or nothing new.
func (l *link) move(addrs []string) *id.Handle {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.self == nil || len(addrs) == 0 || slices.Equal(addrs, l.self.Addrs) {
		return nil
	}
	h := *l.self
	h.Addrs = addrs
	l.self = &h
	return l.self
}

// handle is this node's own.
func (l *link) handle() *id.Handle {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.self
}

// know takes what handshakes need of the roster.
func (l *link) know(r stack.RosterState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.digest = r.Digest
}

// Hello is what this node says in a handshake.
func (l *link) Hello() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.who == nil {
		return nil
	}
	h := ident.Hello{
		Min: ident.WireMin, Max: ident.WireMax, Wall: l.wall(),
		Pool: l.who.pool.ID(), Chain: l.who.chain, Handle: l.self, Roster: l.digest,
	}
	return h.Encode()
}

// Admit checks what a peer said.
func (l *link) Admit(key [32]byte, hello []byte) (*id.Handle, error) {
	l.mu.Lock()
	who := l.who
	l.mu.Unlock()
	if who == nil {
		return nil, errNotYet
	}
	h, err := ident.ParseHello(hello)
	if err != nil {
		l.badHellos.Add(1)
		return nil, err
	}
	handle, _, err := h.Check(ident.Gate{
		Pool: who.pool, Min: ident.WireMin, Max: ident.WireMax, Revoked: l.barred,
	}, key, l.wall())
	if err != nil {
		l.badHellos.Add(1)
		return nil, err
	}
	l.met(handle)
	return handle, nil
}

// Receive decodes a frame, on the goroutine that read it, and hands it to the
// loop. What does not decode is dropped and counted.
func (l *link) Receive(from *id.Handle, bulk bool, frame []byte) {
	msg, err := stack.Decode(frame)
	if err != nil {
		l.badFrames.Add(1)
		msg = nil // counted against its sender, in turn
	}
	l.deliver(from, msg, len(frame), bulk)
}

// Answer answers a question asked before membership.
func (l *link) Answer(ctx context.Context, key [32]byte, question []byte) ([]byte, error) {
	l.mu.Lock()
	open := l.who != nil
	l.mu.Unlock()
	if !open {
		return nil, errNotYet
	}
	return l.answer(ctx, key, question)
}
