package p2p

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	madns "github.com/multiformats/go-multiaddr-dns"
	manet "github.com/multiformats/go-multiaddr/net"
	mss "github.com/multiformats/go-multistream"

	"atoll.example/atoll/internal/transport"
)

// learnKey finds who answers at one of addrs. libp2p dials peers by id and
// refuses to dial without, so this makes the start of a connection by hand
// and hangs up. Nothing is trusted by it: the key is proved again by the
// connection that follows, and what it stands for is the host's to check.
func (t *Transport) learnKey(ctx context.Context, addrs []ma.Multiaddr) (peer.ID, ma.Multiaddr, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*dialTime)
	defer cancel()
	var (
		list  []ma.Multiaddr
		fault error
	)
	for _, m := range addrs {
		if ai, err := relayOf(m); err == nil {
			if len(ai.Addrs) == 1 {
				return ai.ID, ai.Addrs[0], nil
			}
			continue
		}
		got, err := madns.DefaultResolver.Resolve(ctx, m)
		if err != nil {
			fault = err
			continue
		}
		list = append(list, got[:min(len(got), 8)]...)
	}
	type found struct {
		p   peer.ID
		m   ma.Multiaddr
		err error
	}
	results := make(chan found, len(list))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ranked := rank(list)
	for _, r := range ranked {
		go func() {
			f := found{m: r.Addr}
			timer := time.NewTimer(r.Delay)
			defer timer.Stop()
			select {
			case <-timer.C:
				f.p, f.err = t.probe(ctx, r.Addr)
			case <-ctx.Done():
				f.err = ctx.Err()
			}
			results <- f
		}()
	}
	var got found
	for range ranked {
		f := <-results
		switch {
		case f.err == nil && got.p == "":
			got = f
			stop()
		case f.err != nil && got.p == "":
			fault = fmt.Errorf("%s: %w", textOf(f.m), rootOf(f.err))
		}
	}
	if got.p != "" {
		return got.p, got.m, nil
	}
	if fault == nil {
		fault = fmt.Errorf("no address given")
	}
	return "", nil, fmt.Errorf("%w: %w", transport.ErrUnreachable, fault)
}

// probe returns the id of who answers at m.
func (t *Transport) probe(ctx context.Context, m ma.Multiaddr) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	if isQUIC(m) {
		tpt := t.swarm.TransportForDialing(m)
		if tpt == nil {
			return "", fmt.Errorf("QUIC is turned off")
		}
		c, err := tpt.Dial(ctx, m, "")
		if err != nil {
			return "", err
		}
		defer func() { _ = c.Close() }()
		return peer.IDFromPublicKey(c.RemotePublicKey())
	}
	scope, err := t.h.Network().ResourceManager().OpenConnection(network.DirOutbound, true, m)
	if err != nil {
		return "", err
	}
	defer scope.Done()
	return greet(ctx, m, t.h.Peerstore().PrivKey(t.h.ID()))
}

// KeyAt returns the key of the node that answers at addr, over TCP. It asks under
// a key made for it, and needs no Transport: a program can look who is there before
// it listens itself. Like learnKey it proves nothing but that key.
func KeyAt(ctx context.Context, addr string) ([32]byte, error) {
	m, err := decodeAddr(addr)
	if err != nil {
		return [32]byte{}, err
	}
	if kindOf(m) != kindTCP {
		return [32]byte{}, fmt.Errorf("%s: %w: not a TCP address", textOf(m), transport.ErrUnreachable)
	}
	priv, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return [32]byte{}, err
	}
	p, err := greet(ctx, m, priv)
	if err != nil {
		return [32]byte{}, fmt.Errorf("%s: %w: %w", textOf(m), transport.ErrUnreachable, err)
	}
	key, ok := keyOf(p)
	if !ok {
		return [32]byte{}, fmt.Errorf("%s: %w: not an Ed25519 key", textOf(m), transport.ErrUnreachable)
	}
	return key, nil
}

// greet returns the id of who answers at m, over TCP.
func greet(ctx context.Context, m ma.Multiaddr, priv crypto.PrivKey) (peer.ID, error) {
	var d manet.Dialer
	c, err := d.DialContext(ctx, m)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if err := mss.SelectProtoOrFail(protocol.ID(libp2ptls.ID), c); err != nil {
		return "", fmt.Errorf("not a node: %w", err)
	}
	sec, err := libp2ptls.New(libp2ptls.ID, priv, nil)
	if err != nil {
		return "", err
	}
	s, err := sec.SecureOutbound(ctx, c, "")
	if err != nil {
		return "", err
	}
	return s.RemotePeer(), nil
}
