package memnet

import (
	"fmt"
	"strings"
	"sync"
	"unicode"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
)

// session is a link between two transports. Each end is seen through its own
// side.
type session struct {
	sides [2]side // opener first
	done  chan struct{}
	once  sync.Once
}

// side is one end of a session.
type side struct {
	t *Transport
	// peer is the far end, as admitted here; bulk and control carry frames
	// from it.
	peer    *id.Handle
	in      [2]chan []byte // control, bulk
	farAddr string
}

// refusal is a reason that came from the other side, cleaned.
type refusal struct{ reason string }

func (r *refusal) Error() string { return transport.ErrRefused.Error() + ": " + r.reason }
func (r *refusal) Unwrap() error { return transport.ErrRefused }

// refuse cleans an error as a network would carry it.
func refuse(err error) error {
	var b strings.Builder
	for _, r := range err.Error() {
		if !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			r = ' '
		}
		if b.Len() >= 200 {
			break
		}
		b.WriteRune(r)
	}
	return &refusal{b.String()}
}

// admit asks the host of t about the holder of key.
func (t *Transport) admit(key [32]byte, hello []byte) (*id.Handle, error) {
	if len(hello) > transport.MaxHello {
		return nil, transport.ErrTooLarge
	}
	h, err := t.host.Admit(key, hello)
	if err != nil {
		return nil, err
	}
	if h == nil || h.Key != key {
		return nil, fmt.Errorf("the handle belongs to another key")
	}
	return h, nil
}

// connect finds or makes the session with key at one of addrs.
func (t *Transport) connect(key [32]byte, addrs []string) (*session, error) {
	if s := t.session(key); s != nil {
		return s, nil
	}
	var u *Transport
	for _, a := range addrs {
		if v := t.net.at(t.addr, a); v != nil && v.key == key {
			u = v
		}
	}
	if u == nil {
		return nil, fmt.Errorf("%w: nobody there", transport.ErrUnreachable)
	}
	if !u.enter() { // its host is called
		return nil, fmt.Errorf("%w: closing", transport.ErrUnreachable)
	}
	defer u.wg.Done()
	us, err := u.admit(t.key, t.host.Hello())
	if err != nil {
		return nil, refuse(err)
	}
	them, err := t.admit(key, u.host.Hello())
	if err != nil {
		return nil, fmt.Errorf("%w: we refused the peer: %w", transport.ErrRefused, err)
	}
	s := &session{done: make(chan struct{})}
	s.sides[0] = side{t: t, peer: them, farAddr: u.addr}
	s.sides[1] = side{t: u, peer: us, farAddr: t.addr}
	for i := range s.sides {
		s.sides[i].in = [2]chan []byte{make(chan []byte), make(chan []byte)}
	}
	return t.net.install(s)
}

// install puts a session in service, unless there is one between the two
// already: then that one is returned.
func (n *Network) install(s *session) (*session, error) {
	a, b := s.sides[0].t, s.sides[1].t
	n.mu.Lock() // orders the two locks below
	defer n.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := a.sessions[b.key]; old != nil {
		return old, nil
	}
	if a.closed || b.closed {
		return nil, transport.ErrClosed
	}
	a.sessions[b.key], b.sessions[a.key] = s, s
	for i := range s.sides {
		d := &s.sides[i]
		d.t.wg.Add(2)
		go d.read(s, false)
		go d.read(s, true)
	}
	return s, nil
}

// side returns the end of s that belongs to t, and the far one.
func (s *session) ends(t *Transport) (near, far *side) {
	if s.sides[0].t == t {
		return &s.sides[0], &s.sides[1]
	}
	return &s.sides[1], &s.sides[0]
}

// read delivers the frames of one class.
func (d *side) read(s *session, bulk bool) {
	defer d.t.wg.Done()
	for {
		select {
		case f := <-d.in[class(bulk)]:
			d.t.host.Receive(d.peer, bulk, f)
		case <-s.done:
			return
		}
	}
}

func class(bulk bool) int {
	if bulk {
		return 1
	}
	return 0
}

// close ends s at both ends.
func (s *session) close() {
	s.once.Do(func() {
		close(s.done)
		for i := range s.sides {
			t, key := s.sides[i].t, s.sides[i].peer.Key
			t.mu.Lock()
			if t.sessions[key] == s {
				delete(t.sessions, key)
			}
			t.mu.Unlock()
		}
	})
}
