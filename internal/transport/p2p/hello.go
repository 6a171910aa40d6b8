package p2p

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	mss "github.com/multiformats/go-multistream"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/wire"
)

// Protocols, as negotiated at the start of every stream.
const (
	linkProto protocol.ID = "/atoll/link/1"
	bulkProto protocol.ID = "/atoll/bulk/1"
	askProto  protocol.ID = "/atoll/ask/1"
)

// refusal is a reason that came from the other side, cleaned.
type refusal struct{ reason string }

func (r *refusal) Error() string { return transport.ErrRefused.Error() + ": " + r.reason }
func (r *refusal) Unwrap() error { return transport.ErrRefused }

// reasonOf makes the text of err fit to be sent, shown and logged: at most
// maxReason bytes of printable characters, on one line. It is applied to what
// we send and again to what we receive.
func reasonOf(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) || unicode.Is(unicode.Bidi_Control, r) {
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > maxReason {
			break
		}
		b.WriteRune(r)
	}
	if b.Len() == 0 {
		return "no reason given"
	}
	return b.String()
}

// stream joins a network.Stream with the lazily negotiated protocol on it.
type stream struct {
	network.Stream
	rw io.ReadWriter
}

func (s *stream) Read(b []byte) (int, error)  { return s.rw.Read(b) }
func (s *stream) Write(b []byte) (int, error) { return s.rw.Write(b) }

// newStream opens a stream of proto on conn; the name travels with the first
// bytes written.
func newStream(ctx context.Context, conn network.Conn, proto protocol.ID) (*stream, error) {
	ctx = network.WithAllowLimitedConn(ctx, "a link")
	s, err := conn.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.SetProtocol(proto); err != nil {
		_ = s.ResetWithError(network.StreamResourceLimitExceeded)
		return nil, err
	}
	return &stream{Stream: s, rw: mss.NewMSSelect(s, proto)}, nil
}

// writeVerdict sends frame(1 ‖ body), or frame(0 ‖ reason) if no is set.
func writeVerdict(w io.Writer, body []byte, no error) error {
	b := make([]byte, 0, 5+max(len(body), maxReason))
	if no == nil {
		b = wire.AppendFrame(b, append([]byte{1}, body...))
	} else {
		b = wire.AppendFrame(b, append([]byte{0}, reasonOf(no.Error())...))
	}
	_, err := w.Write(b)
	return err
}

// readVerdict is the inverse: body, or a *refusal, or a fault of the stream.
func readVerdict(r io.Reader, limit int) ([]byte, error) {
	b, err := wire.ReadFrame(r, 1+max(limit, 4*maxReason))
	if err != nil {
		return nil, err
	}
	switch {
	case len(b) >= 1 && b[0] == 1 && len(b)-1 <= limit:
		return b[1:], nil
	case len(b) >= 1 && b[0] == 0:
		return nil, &refusal{reasonOf(string(b[1:]))}
	}
	return nil, wire.ErrValue
}

var errNotYours = errors.New("the handle belongs to another key")

// admit asks the host about a peer and holds it to the key it has proved.
func (t *Transport) admit(key [32]byte, hello []byte) (*id.Handle, error) {
	h, err := t.host.Admit(key, hello)
	if err != nil {
		return nil, err
	}
	if h == nil || h.Key != key {
		return nil, errNotYours
	}
	if t.rebooted(h) {
		return nil, errOlder
	}
	return h, nil
}

// errOlder tells a process that it is one too many: it goes on to ask why, and
// finds that others remember a later boot (10-overlay §1).
var errOlder = errors.New("a later start of this node is connected: another one with its identity runs")

// rebooted reports whether a later boot of h's node is linked.
func (t *Transport) rebooted(h *id.Handle) bool {
	p, err := t.remoteFor(h.Key)
	if err != nil {
		return false
	}
	defer p.mu.Unlock() // remoteFor has locked it
	return len(p.links) > 0 && p.links[0].h.Epoch > h.Epoch
}

// shake opens a link on conn: it sends our hello, checks theirs, and confirms.
func (t *Transport) shake(ctx context.Context, conn network.Conn) (*link, error) {
	key, ok := keyOf(conn.RemotePeer())
	if !ok {
		return nil, fmt.Errorf("%w: not an Ed25519 key", transport.ErrRefused)
	}
	hello := t.host.Hello()
	if len(hello) > transport.MaxHello {
		return nil, fmt.Errorf("hello of %d bytes: %w", len(hello), transport.ErrTooLarge)
	}
	s, err := newStream(ctx, conn, linkProto)
	if err != nil {
		return nil, err
	}
	h, rtt, err := t.shakeOn(s, key, hello)
	if err != nil {
		_ = s.Reset()
		return nil, err
	}
	l, err := t.addLink(conn, s, h, true, rtt)
	if err != nil {
		_ = s.Reset()
	}
	return l, err
}

func (t *Transport) shakeOn(s *stream, key [32]byte, hello []byte) (*id.Handle, time.Duration, error) {
	start := time.Now()
	_ = s.SetDeadline(start.Add(t.times.shake))
	if _, err := s.Write(wire.AppendFrame(nil, hello)); err != nil {
		return nil, 0, err
	}
	theirs, err := readVerdict(s, transport.MaxHello)
	rtt := time.Since(start)
	if err != nil {
		if errors.As(err, new(*refusal)) {
			t.stats.refusedByPeer.Add(1)
		}
		return nil, 0, err
	}
	h, err := t.admit(key, theirs)
	if err != nil {
		t.stats.helloRefused.Add(1)
		_ = writeVerdict(s, nil, err)
		_ = s.CloseWrite()
		waitEnd(s)
		return nil, 0, fmt.Errorf("we refused the peer: %w", err)
	}
	if err := writeVerdict(s, nil, nil); err != nil {
		return nil, 0, err
	}
	return h, rtt, s.SetDeadline(time.Time{})
}

// waitEnd gives the other side a moment to read a refusal: closing a TCP
// connection at once would throw it away. The stream's deadline is moved.
func waitEnd(s network.Stream) {
	_ = s.SetReadDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.Copy(io.Discard, io.LimitReader(s, 64))
}

// onLink answers a handshake that the other side began, and then reads the
// link until it ends.
func (t *Transport) onLink(s network.Stream) {
	if !t.enter() {
		_ = s.Reset()
		return
	}
	defer t.wg.Done()
	conn := s.Conn()
	key, ok := keyOf(conn.RemotePeer())
	if !ok {
		_ = conn.Close()
		return
	}
	select {
	case t.shaking <- struct{}{}:
	default:
		t.stats.stalls.Add(1)
		_ = s.Reset()
		return
	}
	h, rtt, err := t.answerShake(s, key)
	<-t.shaking
	if err != nil {
		_ = s.Reset()
		t.dropUnlinked(conn)
		return
	}
	l, err := t.addLink(conn, &stream{Stream: s, rw: s}, h, false, rtt)
	if err != nil {
		_ = s.Reset()
		return
	}
	l.read()
}

func (t *Transport) answerShake(s network.Stream, key [32]byte) (*id.Handle, time.Duration, error) {
	_ = s.SetDeadline(time.Now().Add(t.times.shake))
	theirs, err := wire.ReadFrame(s, transport.MaxHello)
	if err != nil {
		t.countFault(err)
		return nil, 0, err
	}
	h, err := t.admit(key, theirs)
	hello := t.host.Hello()
	if err == nil && len(hello) > transport.MaxHello {
		err = transport.ErrTooLarge
	}
	if err != nil {
		t.stats.helloRefused.Add(1)
		t.log.Debug("refused a peer", "addr", textOf(s.Conn().RemoteMultiaddr()), "reason", err)
		_ = writeVerdict(s, nil, err)
		_ = s.CloseWrite()
		waitEnd(s)
		return nil, 0, err
	}
	start := time.Now()
	if err := writeVerdict(s, hello, nil); err != nil {
		return nil, 0, err
	}
	if _, err := readVerdict(s, 0); err != nil {
		if errors.As(err, new(*refusal)) {
			t.stats.refusedByPeer.Add(1)
		} else {
			t.countFault(err)
		}
		return nil, 0, err
	}
	return h, time.Since(start), s.SetDeadline(time.Time{})
}
