// Package memnet joins transports of one process in memory. It keeps the
// promises of transport/p2p that others may rely on (handshake before frames,
// bounded queues, deadlines of queued frames, questions before membership at a
// limited rate, back-pressure per stream class) with no sockets and no
// cryptography, and lets tests cut and thin out the paths between nodes.
// Addresses are "mem:N". Keys are taken on trust.
package memnet

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"atoll.example/atoll/internal/transport"
)

// ErrInUse is returned by New for an address that is taken.
var ErrInUse = errors.New("address already in use")

// Network joins the transports made by its New.
type Network struct {
	mu    sync.Mutex
	nodes map[string]*Transport
	last  int
	cut   map[[2]string]struct{}
	loss  float64
	rnd   *rand.Rand

	queued time.Duration // how long a frame waits for a connection
}

// NewNetwork makes an empty network; seed is that of its losses.
func NewNetwork(seed uint64) *Network {
	return &Network{
		nodes: map[string]*Transport{}, cut: map[[2]string]struct{}{},
		rnd: rand.New(rand.NewPCG(seed, 0)), queued: 10 * time.Second,
	}
}

// New starts a transport for the holder of key, at addr or, if addr is empty,
// at an address of its own. Close it.
func (n *Network) New(key [32]byte, addr string, h transport.Host) (*Transport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for addr == "" {
		n.last++
		if a := fmt.Sprintf("mem:%d", n.last); n.nodes[a] == nil {
			addr = a
		}
	}
	if n.nodes[addr] != nil {
		return nil, fmt.Errorf("memnet: listen on %s: %w", addr, ErrInUse)
	}
	t := newTransport(n, key, addr, h)
	n.nodes[addr] = t
	return t, nil
}

// Cut severs the path between two addresses, for new and existing links,
// until Mend.
func (n *Network) Cut(a, b string) {
	n.mu.Lock()
	n.cut[pair(a, b)] = struct{}{}
	x, y := n.nodes[a], n.nodes[b]
	n.mu.Unlock()
	if x != nil && y != nil {
		x.hangUp(y.key)
	}
}

// Mend undoes Cut.
func (n *Network) Mend(a, b string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.cut, pair(a, b))
}

// SetLoss makes each frame get lost with probability p.
func (n *Network) SetLoss(p float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.loss = p
}

func pair(a, b string) [2]string {
	if a > b {
		a, b = b, a
	}
	return [2]string{a, b}
}

// at returns who answers at addr when called from another address.
func (n *Network) at(from, addr string) *Transport {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, cut := n.cut[pair(from, addr)]; cut {
		return nil
	}
	return n.nodes[addr]
}

func (n *Network) lost() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loss > 0 && n.rnd.Float64() < n.loss
}

// leave frees the address of t.
func (n *Network) leave(t *Transport) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes[t.addr] == t {
		delete(n.nodes, t.addr)
	}
}
