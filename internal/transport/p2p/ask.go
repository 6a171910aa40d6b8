package p2p

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/wire"
)

var (
	errAskRate = errors.New("too many questions from this address; try again in a second")
	errAskSize = errors.New("question too large")
)

// Ask puts one question to a node; see transport.Transport. Addresses that
// come without a key are an operator's, as in an invite: they are dialled
// whatever they are, names are resolved, and they widen what may be dialled
// later (see reach). If such an address leads through a relay, the relay
// itself is asked: it is a member too.
func (t *Transport) Ask(ctx context.Context, to *id.Handle, question []byte) ([]byte, [32]byte, error) {
	if len(question) > transport.MaxAsk {
		return nil, [32]byte{}, transport.ErrTooLarge
	}
	if !t.enter() {
		return nil, [32]byte{}, transport.ErrClosed
	}
	defer t.wg.Done()
	ctx, cancel := t.bound(ctx)
	defer cancel()
	conn, key, err := t.connFor(ctx, to)
	if err != nil {
		return nil, key, t.orClosed(err)
	}
	ctx, cancel2 := context.WithTimeout(ctx, t.times.answer)
	defer cancel2()
	answer, err := t.askOn(ctx, conn, question)
	return answer, key, t.orClosed(err)
}

// bound joins the caller's context with the transport's.
func (t *Transport) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(t.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (t *Transport) orClosed(err error) error {
	if err != nil && t.isClosed() {
		return transport.ErrClosed
	}
	return err
}

// connFor finds or makes a connection for a question.
func (t *Transport) connFor(ctx context.Context, to *id.Handle) (network.Conn, [32]byte, error) {
	var addrs []ma.Multiaddr
	trusted := to.Key == [32]byte{}
	for _, a := range to.Addrs {
		m, err := decodeAddr(a)
		if err != nil {
			return nil, to.Key, err
		}
		if trusted {
			t.reach.give(m)
		}
		if trusted || t.reach.allows(m) {
			addrs = append(addrs, m)
		}
	}
	var pid peer.ID
	if trusted {
		got, addr, err := t.learnKey(ctx, addrs)
		if err != nil {
			return nil, to.Key, err
		}
		pid, addrs = got, []ma.Multiaddr{addr}
	} else {
		got, err := peerOf(to.Key)
		if err != nil {
			return nil, to.Key, fmt.Errorf("%w: %w", transport.ErrUnreachable, err)
		}
		pid = got
	}
	key, ok := keyOf(pid)
	if !ok {
		return nil, key, fmt.Errorf("%w: not an Ed25519 key", transport.ErrRefused)
	}
	if key == t.key {
		return nil, key, errSelf
	}
	conn, err := t.dialConn(ctx, pid, addrs)
	return conn, key, err
}

func (t *Transport) askOn(ctx context.Context, conn network.Conn, question []byte) ([]byte, error) {
	s, err := newStream(ctx, conn, askProto)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, err)
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if d, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(d)
	}
	// The other side may refuse before it has read the question, and stop
	// reading: what it has to say counts, not whether the question went.
	if _, err := s.Write(wire.AppendFrame(nil, question)); err == nil {
		_ = s.CloseWrite()
	}
	answer, err := readVerdict(s, transport.MaxAnswer)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: no answer: %w", transport.ErrUnreachable, ctx.Err())
	case errors.As(err, new(*refusal)):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: no answer: %w", transport.ErrUnreachable, err)
	}
	return answer, nil
}

// onAsk answers a question.
func (t *Transport) onAsk(s network.Stream) {
	if !t.enter() {
		_ = s.Reset()
		return
	}
	defer t.wg.Done()
	_ = s.SetDeadline(time.Now().Add(t.times.answer))
	answer, err := t.answer(s)
	if err != nil && errors.Is(err, errDropped) {
		_ = s.Reset()
		return
	}
	if writeVerdict(s, answer, err) != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

// errDropped marks a question that deserves no answer.
var errDropped = errors.New("dropped")

func (t *Transport) answer(s network.Stream) ([]byte, error) {
	key, ok := keyOf(s.Conn().RemotePeer())
	if !ok {
		return nil, errDropped
	}
	if !t.asks.allow(s.Conn().RemoteMultiaddr(), time.Now()) {
		t.stats.askRefused.Add(1)
		return nil, errAskRate
	}
	question, err := wire.ReadFrame(s, transport.MaxAsk)
	if errors.Is(err, wire.ErrBound) {
		t.stats.askRefused.Add(1)
		return nil, errAskSize
	}
	if err != nil {
		t.countFault(err)
		return nil, errDropped
	}
	select {
	case t.asking <- struct{}{}:
		defer func() { <-t.asking }()
	default:
		t.stats.askRefused.Add(1)
		return nil, errAskRate
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.times.answer)
	defer cancel()
	answer, err := t.host.Answer(ctx, key, question)
	if err != nil {
		return nil, err
	}
	if len(answer) > transport.MaxAnswer {
		return nil, transport.ErrTooLarge
	}
	t.stats.asked.Add(1)
	return answer, nil
}
