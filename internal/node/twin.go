package node

import (
	"context"
	"fmt"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/roster"
	"atoll.example/atoll/internal/transport/p2p"
)

// twinPatience bounds the look for a twin: at a start after which the node has
// other addresses, and nobody refuses at the old ones. Chosen by us.
const twinPatience = 2 * time.Second

// noTwin refuses the start of a node that runs elsewhere already, from a copy of
// its folder: by its boot epoch it would be taken for that one's successor, and
// void its leases (10-overlay §1). It looks where the roster has seen the node last.
// This process must not listen yet, so that it cannot find itself. A twin that
// cannot be reached is not found here: of two in one pool, the one with the lower
// epoch is told so, jumps, and then looks at the addresses of the other.
func (n *Node) noTwin(ctx context.Context) error {
	if !n.home.has(memberFile) {
		return nil
	}
	if err := n.home.membership(n.who); err != nil {
		return err
	}
	b, err := n.home.read(rosterFile)
	if err != nil || b == nil {
		return err
	}
	r := roster.New(roster.Config{Self: n.GUID()}, n.who.pool)
	_ = r.Restore(b) // what is not usable is told by openRoster
	h := r.Handle(n.GUID())
	if h == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, twinPatience)
	defer cancel()
	found := make(chan string, id.MaxAddrs)
	for _, addr := range h.Addrs {
		n.tasks.Go(func() {
			if key, err := p2p.KeyAt(ctx, addr); err != nil || key != n.who.node.Public() {
				addr = ""
			}
			found <- addr
		})
	}
	for range h.Addrs {
		if addr := <-found; addr != "" {
			return fmt.Errorf("%w at %s, from a copy of %s: stop that one first, or leave this one stopped. "+
				"To add a machine, give it a node of its own: \"atoll invite\" there, \"atoll join INVITE\" here with another --dir",
				ErrTwin, p2p.FormatAddr(addr), n.home.dir)
		}
	}
	return nil
}
