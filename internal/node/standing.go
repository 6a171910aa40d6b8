package node

import (
	"context"
	"fmt"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
)

// A node that was revoked while it was down, or whose links were cut before it
// heard of it, finds its handshakes refused. It asks whoever refused it for the
// signed entry of the roster that says so, and stops when the signature is good:
// one member's word alone stops nobody. A node that others know under a later boot
// epoch is refused too, and gets the entry that this later boot has signed.

// askPause is how often a member that refused a link is asked at most.
const askPause = time.Second

// barred is what links are refused for: the roster's word against a chain.
func (n *Node) barred(c ident.Chain) (err error) {
	_ = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		err = n.stack.Roster().CheckChain(c)
		return out
	})
	return err
}

// doubt notes that a member has refused a link. It is called by the loop and
// does not block.
func (n *Node) doubt(h *id.Handle) {
	select {
	case n.doubts <- h:
	default: // another one is being asked
	}
}

// asking asks members that refused a link why.
func (n *Node) asking() {
	pause := time.NewTicker(askPause)
	defer pause.Stop()
	for {
		select {
		case h := <-n.doubts:
			if err := n.askStanding(h); err != nil && !n.loop.stopping() {
				n.cfg.Log.Info("a member refuses this node", "member", h.GUID.Short(), "err", err)
			}
		case <-n.loop.stop:
			return
		}
		select {
		case <-pause.C:
		case <-n.loop.stop:
			return
		}
	}
}

// askStanding asks one member for its grounds and takes them into the roster,
// which checks them; if they stand, the machine halts.
func (n *Node) askStanding(h *id.Handle) error {
	ctx, cancel := context.WithTimeout(context.Background(), n.cfg.JoinTimeout)
	defer cancel()
	b, proved, err := n.tr.Ask(ctx, h, ident.EncodeQuestion(&ident.Standing{Chain: n.chain()}))
	if err != nil {
		return err
	}
	if proved != h.Key {
		return ident.ErrNotMember
	}
	g, err := ident.ParseGrounds(b)
	if err != nil || len(g.Entry) == 0 {
		return err
	}
	return n.withRoster(func(r *roster.Roster) error {
		_, err := r.Add(g.Entry)
		return err
	})
}

// revoked words for this node's user what the roster says against it.
func (n *Node) revoked(err error) error {
	return fmt.Errorf("this node's %w. The folder %s is of no more use in pool %q; to come back, ask an admin for an invite and join with another folder (--dir)",
		err, n.home.dir, n.who.pool.Name)
}
