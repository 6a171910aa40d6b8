package p2p

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"
)

// Our own choices, and why.
const (
	// dialTime bounds one attempt on all addresses of a peer.
	dialTime = 5 * time.Second
	// relayHead is the start that direct addresses have over relayed ones: a
	// direct handshake across the world takes about three round trips.
	relayHead = time.Second
	// firstRetry and lastRetry bound the pause between dials while frames
	// wait: a process that restarts is found again within a second.
	firstRetry = 50 * time.Millisecond
	lastRetry  = 500 * time.Millisecond
	// refusedTime is how long a peer that refused us is left alone.
	refusedTime = 5 * time.Second
	// idleTime closes links that carried nothing; spareTime those that are
	// not the one written on.
	idleTime  = 10 * time.Minute
	spareTime = 30 * time.Second
	// firstUpgrade and lastUpgrade bound the pause between attempts to replace a
	// relayed path by a direct one, or the TCP to a relay by QUIC: at first both
	// sides may be new, and do not know yet where they appear outside.
	firstUpgrade = 5 * time.Second
	lastUpgrade  = time.Minute
	// bulkIdle ends a bulk stream that carried nothing.
	bulkIdle = time.Minute
	// turnTime is how long frames of a new link wait for the end of the old.
	turnTime = time.Second

	maxHurries = 4   // attempts out of turn to leave a relayed path
	maxBulk    = 4   // bulk streams per link and direction
	maxLinks   = 4   // links per peer
	maxReason  = 200 // bytes of a refusal reason
	maxAsks    = 16  // questions answered at once
	maxDials   = 128 // peers dialled at once
	maxLongIn  = 64  // frames over 64 KiB being received or delivered at once
	maxShaking = 256 // handshakes at once that others began: four times PerAddress
)

// times are the patience we have with peers; tests have less.
type times struct {
	// shake bounds the three messages of a handshake: three round trips of a
	// bad path and two signature checks on a busy machine.
	shake time.Duration
	// fresh is how long a connection may go without becoming a link.
	fresh time.Duration
	// frame bounds the rest of a frame once its first byte has come: 1 MiB in
	// 30 s is 35 kB/s, the least path we serve.
	frame time.Duration
	// stall bounds a write to a peer that does not read.
	stall time.Duration
	// answer bounds Host.Answer, and one Ask on an established connection.
	answer time.Duration
	// sweep is the pause between looks for what is idle.
	sweep time.Duration
	// queued is how long a frame waits for a connection. Requests above this
	// port time out sooner, so older frames help nobody.
	queued time.Duration
}

var patience = times{
	shake: 10 * time.Second, fresh: 30 * time.Second, frame: 30 * time.Second,
	stall: time.Minute, answer: 25 * time.Second, sweep: 5 * time.Second,
	queued: 10 * time.Second,
}

// Limits bound what the transport may hold. The zero value means Defaults.
type Limits struct {
	Memory     int64 // bytes libp2p may reserve for windows and buffers; 256 MiB
	Conns      int   // connections, of both directions; 512
	Streams    int   // streams, of both directions; 4,096
	PerAddress int   // connections from one IPv4 address or IPv6 /64; 64 (loopback: 256)
	Queued     int64 // bytes queued for sending to all peers; 128 MiB
	PeerCtl    int   // bytes queued for one peer, control; 4 MiB
	PeerBulk   int   // bytes queued for one peer, bulk; 48 MiB
	Peers      int   // peers with any state; 4,096
	// LocalAsks is the burst of questions taken from a loopback address in
	// place of the eight of any other: several nodes on one computer are
	// several askers behind one address, and whoever can ask from it can do
	// worse than ask; 64.
	LocalAsks int
}

// DefaultLimits suit a node that must stay under 400 MiB: libp2p reserves
// windows in full but rarely fills them, and queues are full only when a disk
// or a path stalls.
func DefaultLimits() Limits {
	return Limits{
		Memory: 256 << 20, Conns: 512, Streams: 4096, PerAddress: 64,
		Queued: 128 << 20, PeerCtl: 4 << 20, PeerBulk: 48 << 20, Peers: 4096, LocalAsks: 64,
	}
}

// Config is what New needs. Only Key is required.
type Config struct {
	// Key is the node key.
	Key ed25519.PrivateKey

	// Listen are addresses to listen on, as text: multiaddrs or what
	// ParseListen takes. Default: all IPv4 interfaces, ports chosen by the
	// system, TCP and QUIC; with Loopback, 127.0.0.1 instead.
	Listen []string
	// Loopback keeps the node on this machine: it listens on 127.0.0.1 by
	// default, dials loopback addresses, and runs no NAT machinery.
	Loopback bool
	// NoListen listens on nothing: the node is reached through relays, or on
	// the connections it makes itself.
	NoListen bool
	// NoQUIC turns QUIC off, for listening and dialling.
	NoQUIC bool

	// NoRelay turns off relaying: neither reached through others nor relaying
	// for them. NoHolePunch keeps relayed paths as they are.
	NoRelay     bool
	NoHolePunch bool
	// Relays are members to hold reservations at, as /…/p2p/ID text. Without
	// any, a node that finds itself unreachable picks among its peers.
	Relays []string

	// Announce are addresses to tell others first, as text: the outside of a
	// port forwarded by hand.
	Announce []string
	// Known are addresses given by the operator, of the invite for instance,
	// as text or as in a Handle: they and their neighbours (IPv4 /24, IPv6
	// /64) may be dialled although they are private.
	Known []string
	// Private are further private networks whose addresses may be dialled.
	Private []netip.Prefix

	// UserAgent is told to peers by the identify protocol. Default "atoll".
	UserAgent string
	Limits    Limits
	// Log gets what an operator may want to see. Default: nothing.
	Log *slog.Logger
	// OnAddrs is called, from a goroutine of the transport, after Addrs has
	// changed: a relay was found or lost, an outside address was confirmed.
	OnAddrs func()
}

// Validate returns the first fault.
func (c *Config) Validate() error {
	if len(c.Key) != ed25519.PrivateKeySize {
		return errors.New("p2p: Key is not an Ed25519 private key")
	}
	if c.NoListen && len(c.Listen) > 0 {
		return errors.New("p2p: both NoListen and Listen are set")
	}
	if c.NoRelay && len(c.Relays) > 0 {
		return errors.New("p2p: both NoRelay and Relays are set")
	}
	for _, l := range c.Listen {
		if _, err := ParseListen(l, !c.NoQUIC); err != nil {
			return err
		}
	}
	for _, list := range [][]string{c.Announce, c.Known} {
		for _, a := range list {
			if _, err := parseEither(a); err != nil {
				return err
			}
		}
	}
	for _, r := range c.Relays {
		if _, err := parseRelay(r); err != nil {
			return err
		}
	}
	l := c.Limits
	if l.Memory < 0 || l.Conns < 0 || l.Streams < 0 || l.PerAddress < 0 || l.Queued < 0 || l.PeerCtl < 0 || l.PeerBulk < 0 || l.Peers < 0 || l.LocalAsks < 0 {
		return errors.New("p2p: a limit is negative")
	}
	return nil
}

// fill returns c with defaults in place of zero values.
func (c Config) fill() Config {
	d, l := DefaultLimits(), &c.Limits
	setDefault(&l.Memory, d.Memory)
	setDefault(&l.Conns, d.Conns)
	setDefault(&l.Streams, d.Streams)
	setDefault(&l.PerAddress, d.PerAddress)
	setDefault(&l.Queued, d.Queued)
	setDefault(&l.PeerCtl, d.PeerCtl)
	setDefault(&l.PeerBulk, d.PeerBulk)
	setDefault(&l.Peers, d.Peers)
	setDefault(&l.LocalAsks, d.LocalAsks)
	if c.UserAgent == "" {
		c.UserAgent = "atoll"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if len(c.Listen) == 0 && !c.NoListen {
		ip := "0.0.0.0"
		if c.Loopback {
			ip = "127.0.0.1"
		}
		c.Listen = []string{fmt.Sprintf("%s:0", ip)}
	}
	return c
}

func setDefault[T int | int64](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
