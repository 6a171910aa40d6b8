// Package transport is the port between a node and a network: authenticated,
// encrypted links to other members, over which frames travel without promise
// of arrival. transport/p2p implements it on libp2p, transport/memnet in
// memory; transporttest is the suite both pass.
package transport

import (
	"context"
	"errors"
	"time"

	"atoll.example/atoll/internal/id"
)

// Errors of Send and Ask.
var (
	ErrQueueFull   = errors.New("send queue full")
	ErrClosed      = errors.New("transport closed")
	ErrUnreachable = errors.New("peer unreachable")
	ErrRefused     = errors.New("peer refused the handshake")
	ErrTooLarge    = errors.New("frame over its bound")
)

// Bounds of frames in bytes (20-dht §3, §7).
const (
	MaxControl = 72 << 10           // a control frame
	MaxBulk    = 1<<20 + 64 + 4<<10 // a frame with a block: block, claims and header
	MaxHello   = 8 << 10            // handshake payload
	MaxAsk     = 4 << 10            // question before membership, and its answer ≤ MaxAnswer
	MaxAnswer  = 64 << 10
)

// Host is what a transport calls. Methods may be called by several goroutines
// at once.
type Host interface {
	// Hello returns the payload this node sends in every handshake: version
	// range, pool, certificate, handle.
	Hello() []byte
	// Admit checks the payload of a peer that has proved to hold key. An
	// error refuses the link and is told to the peer.
	Admit(key [32]byte, hello []byte) (*id.Handle, error)
	// Receive takes one frame, now owned by the callee. It may block: that
	// peer's stream then stops being read.
	Receive(from *id.Handle, bulk bool, frame []byte)
	// Answer answers a question asked before membership, by whoever holds key.
	Answer(ctx context.Context, key [32]byte, question []byte) ([]byte, error)
}

// Link describes a live connection, for status and doctor.
type Link struct {
	Peer    id.GUID
	Addr    string // as people read it
	Proto   string // tcp, quic, relay, mem
	Inbound bool
	// RTT is the round trip that the handshake took, with the checks of
	// certificates in it. 0: not measured.
	RTT time.Duration
	// Agent is the program the peer says it runs, at most 64 bytes of
	// printable text; empty until it has said so.
	Agent string
}

// Transport carries frames.
type Transport interface {
	// Addrs are this node's own addresses, at most id.MaxAddrs, for its handle.
	Addrs() []string
	// Send queues a frame, which may come in parts, and returns at once. An
	// error means the frame will not go; no error promises nothing. The parts
	// are only read from now on, by the transport and by those who share them.
	Send(to *id.Handle, bulk bool, frame ...[]byte) error
	// Ask puts one question to a node whose GUID is not yet trusted: to has
	// Addrs, and Key if it is known. It returns the key the peer proved.
	Ask(ctx context.Context, to *id.Handle, question []byte) (answer []byte, key [32]byte, err error)
	// Drop closes the links to a peer and forgets what was queued for it.
	Drop(peer id.GUID)
	// Links lists live connections.
	Links() []Link
	// Close ends all links and waits for their goroutines.
	Close() error
}

// Size is the length of a frame in parts.
func Size(frame [][]byte) (n int) {
	for _, part := range frame {
		n += len(part)
	}
	return n
}
