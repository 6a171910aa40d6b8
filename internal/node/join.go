package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/transport"
	"atoll.example/atoll/internal/transport/p2p"
)

// join asks the members whose addresses stand in the invite, one after the
// other, until one answers (20-dht §7). The certificate is on disk before join
// returns.
func (n *Node) join(ctx context.Context, v *ident.Invite) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.JoinTimeout)
	defer cancel()
	q, err := ident.NewJoinRequest(v, ident.Subject{
		Node: n.who.node.Public(), Owner: n.who.owner.Public(), Name: n.cfg.Name, Domain: n.cfg.Domain,
	}, n.cfg.Wall())
	if err != nil {
		return err
	}
	known := ""
	for _, a := range v.Addrs {
		known += p2p.FormatAddr(a) + "\n"
	}
	if err := n.home.write(knownFile, []byte(known)); err != nil {
		return err
	}
	for {
		a, err := n.askAll(ctx, v, q)
		if err == nil {
			return n.joined(a)
		}
		// A member that is busy with others who join asks to come again.
		if !errors.Is(err, transport.ErrRefused) || !errors.Is(err, ident.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return err
		}
	}
}

// askAgain is the pause before a busy member is asked again: it answers one
// question a second from one address once a burst is used up (20-dht §7).
const askAgain = time.Second

// askAll asks one member after the other until one answers. The word of the
// issuer, or a pool or clock that cannot be right, ends the search.
func (n *Node) askAll(ctx context.Context, v *ident.Invite, q *ident.JoinRequest) (*ident.JoinAnswer, error) {
	silent := &noAnswer{}
	for _, addr := range v.Addrs {
		a, err := n.askToJoin(ctx, v, q, addr)
		if err == nil {
			return a, nil
		}
		var refused *ident.Refusal
		final := errors.As(err, &refused) && !errors.Is(err, ident.ErrUnavailable)
		if final || errors.Is(err, ident.ErrWrongPool) || errors.Is(err, ident.ErrClock) {
			return nil, err
		}
		silent.add(addr, err)
	}
	return nil, silent
}

// noAnswer says that none of the addresses in an invite led to a certificate.
type noAnswer struct {
	tried []string // each address with what came of it
	errs  []error
}

func (e *noAnswer) add(addr string, err error) {
	e.errs = append(e.errs, err)
	why := err.Error()
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		why = "nothing listens there"
	case errors.Is(err, transport.ErrUnreachable):
		why = "no answer"
	}
	e.tried = append(e.tried, PlainAddr(p2p.FormatAddr(addr))+" ("+why+")")
}

func (e *noAnswer) Error() string {
	if len(e.tried) == 0 {
		return "the invite names no address"
	}
	return "no member named in the invite answers: " + strings.Join(e.tried, ", ") +
		"; check that the node that gave it runs and can be reached from here"
}

func (e *noAnswer) Unwrap() []error { return append([]error{ident.ErrUnavailable}, e.errs...) }

// PlainAddr makes an address as p2p.FormatAddr has it, which can be dialled, one
// for people: host:port, and QUIC where it is that.
func PlainAddr(s string) string {
	f := strings.Split(s, "/") // "", ip4, host, udp, port, quic-v1
	if len(f) == 6 && f[3] == "udp" && f[5] == "quic-v1" {
		return net.JoinHostPort(f[2], f[4]) + " by QUIC"
	}
	return s
}

// seek asks members at the addresses of invites until one answers: of the one given
// to a member whose pool has moved, or of all that were, if its roster is lost. The
// connection stays, and the machine looks for all it remembers.
func (n *Node) seek() {
	addrs := n.invited()
	for pause := askAgain; ; pause = min(2*pause, lastPause) {
		for _, addr := range addrs {
			h, err := n.identify(addr)
			if err == nil {
				err = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
					n.stack.Ring().Remember([]*id.Handle{h})
					return out
				})
			}
			if err == nil {
				return
			}
			n.cfg.Log.Info("no member at an address of the invite", "addr", p2p.FormatAddr(addr), "err", err)
		}
		select {
		case <-time.After(pause):
		case <-n.ready:
			return
		case <-n.loop.stop:
			return
		}
	}
}

// lastPause bounds the pause before the addresses of invites are tried again.
const lastPause = 30 * time.Second

// invited are the addresses of invites that the folder keeps, and of the one given
// now, which it keeps from now on.
func (n *Node) invited() (addrs []string) {
	known, err := n.home.read(knownFile)
	if n.search != nil {
		for _, addr := range n.search.Addrs {
			if text := p2p.FormatAddr(addr); !slices.Contains(strings.Fields(string(known)), text) {
				known = append(known, text+"\n"...)
			}
		}
		if err == nil && len(known) < maxKnown {
			err = n.home.write(knownFile, known)
		}
	}
	if err != nil {
		n.cfg.Log.Warn("addresses of the invite not kept", "err", err)
	}
	return parseKnown(known)
}

// parseKnown reads the file of addresses from invites. What is none is left out: it
// may be of a later version, or damaged, and the node starts without it.
func parseKnown(b []byte) (addrs []string) {
	for _, text := range strings.Fields(string(b)) {
		if addr, err := p2p.ParseAddr(text); err == nil {
			addrs = append(addrs, addr)
		}
	}
	return addrs
}

// identify asks who is at an address: another member of this node's pool.
func (n *Node) identify(addr string) (*id.Handle, error) {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.JoinTimeout)
	defer cancel()
	h := &id.Handle{Addrs: []string{addr}}
	b, key, err := n.tr.Ask(ctx, h, ident.EncodeQuestion(ident.Identify{}))
	if err != nil {
		return nil, err
	}
	who, err := ident.ParseIdentity(b)
	if err != nil {
		return nil, err
	}
	if err := who.Chain.Verify(n.who.pool, n.cfg.Wall()); err != nil {
		return nil, err
	}
	switch who.Chain.Leaf().Node {
	case n.who.node.Public():
		return nil, errSelf
	case key:
		h.Key, h.GUID = key, ident.GUIDOf(key)
		return h, nil
	}
	return nil, ident.ErrNotMember
}

var errSelf = errors.New("this is the node itself")

// maxKnown bounds the file of addresses from invites, in bytes.
const maxKnown = 64 << 10

func (n *Node) askToJoin(ctx context.Context, v *ident.Invite, q *ident.JoinRequest, addr string) (*ident.JoinAnswer, error) {
	to := &id.Handle{Addrs: []string{addr}}
	b, key, err := n.tr.Ask(ctx, to, ident.EncodeQuestion(ident.Identify{}))
	if err != nil {
		return nil, err
	}
	who, err := v.ParseIdentity(b, key, n.cfg.Wall())
	if err != nil {
		return nil, err
	}
	if who.Chain.Leaf().Node == n.who.node.Public() {
		return nil, errSelf
	}
	to.Key, to.GUID = key, ident.GUIDOf(key)
	b, proved, err := n.tr.Ask(ctx, to, ident.EncodeQuestion(q))
	if err != nil {
		return nil, err
	}
	if proved != key {
		return nil, transport.ErrRefused
	}
	return v.ParseAnswer(b, q, n.cfg.Wall())
}

// joined keeps what the answer brought.
func (n *Node) joined(a *ident.JoinAnswer) error {
	n.who.pool, n.who.chain = a.Pool, a.Chain
	for _, h := range a.Handles {
		if ident.CheckHandle(h) == nil {
			n.seeds = append(n.seeds, h)
		}
	}
	if len(n.seeds) == 0 {
		return fmt.Errorf("%w: the answer names no member to start from", ident.ErrUnavailable)
	}
	r := roster.New(roster.Config{Self: n.GUID()}, a.Pool)
	if _, err := r.Load(a.Seeds); err != nil {
		return fmt.Errorf("roster of the pool: %w", err)
	}
	if err := n.home.write(rosterFile, r.Encode()); err != nil {
		return err
	}
	if err := n.home.enrol(n.who); err != nil {
		return err
	}
	if err := n.home.remove(leftFile); err != nil {
		return err
	}
	return n.home.remove(pendingFile)
}
