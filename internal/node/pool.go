package node

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/roster"
)

// withRoster runs f on the roster between two Steps.
func (n *Node) withRoster(f func(*roster.Roster) error) error {
	var failed error
	err := n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		failed = f(n.stack.Roster())
		return n.stack.RosterChanged(now, out)
	})
	if err != nil {
		return err
	}
	return failed
}

// isMember reports whether a key is that of a member who may be here.
func (n *Node) isMember(key [32]byte) (yes bool) {
	_ = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		m, ok := n.stack.Roster().Info(ident.GUIDOf(key))
		yes = ok && (m.Status == roster.Ready || m.Status == roster.Certified)
		return out
	})
	return yes
}

// handleOf is the best known handle of a member, nil if it is unknown.
func (n *Node) handleOf(g id.GUID) (h *id.Handle) {
	_ = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		if h = n.stack.Ring().Lookup(g); h == nil {
			h = n.stack.Roster().Handle(g)
		}
		return out
	})
	return h
}

// neighbours are up to num members near this node on the ring.
func (n *Node) neighbours(num int) (hs []*id.Handle) {
	_ = n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		hs = n.stack.Ring().NeighborSet(num)
		return out
	})
	return hs
}

// chain is this node's certificate.
func (n *Node) chain() ident.Chain {
	n.link.mu.Lock()
	defer n.link.mu.Unlock()
	return n.who.chain
}

// InviteTerms say what an invite grants. Zero values: member, one use, a day.
type InviteTerms struct {
	Role  ident.Role
	Uses  int
	TTL   time.Duration
	Quota int64
}

// Invite makes an invite; the issuer's state is on disk before it returns.
func (n *Node) Invite(t InviteTerms) (text string, expires time.Time, err error) {
	if t.Role == 0 {
		t.Role = ident.Member
	}
	if t.Uses == 0 {
		t.Uses = 1
	}
	if t.TTL == 0 {
		t.TTL = 24 * time.Hour
	}
	var token ident.Token
	if _, err := rand.Read(token[:]); err != nil {
		return "", time.Time{}, err
	}
	addrs := n.link.handle().Addrs
	for _, h := range n.neighbours(3) {
		if len(addrs) < id.MaxAddrs && len(h.Addrs) > 0 {
			addrs = append(addrs[:len(addrs):len(addrs)], h.Addrs[0])
		}
	}
	var v *ident.Invite
	_, err = n.issue(func(i *ident.Issuer) (ident.Chain, bool, error) {
		var err error
		v, err = i.Invite(token, ident.Terms{
			Role: t.Role, Uses: t.Uses, TTL: t.TTL.Milliseconds(), Quota: uint64(t.Quota), Addrs: addrs,
		}, n.cfg.Wall())
		return nil, err == nil, err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return v.Text(), time.UnixMilli(v.Expiry), nil
}

// MayRevoke is nil if this node can revoke members.
func (n *Node) MayRevoke() error {
	if role := n.chain().Leaf().Role; n.who.root.IsZero() && role != ident.Admin {
		return fmt.Errorf("%w: only an admin of the pool revokes; this node is a %s", ident.ErrForbidden, role)
	}
	return nil
}

// Revoke throws a member out of the pool, for ever under its key. That is on the
// disk when it returns.
func (n *Node) Revoke(target id.GUID, reason string) error {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	if err := n.MayRevoke(); err != nil {
		return err
	}
	key, chain := n.who.node, n.chain()
	if !n.who.root.IsZero() {
		key, chain = n.who.root, nil
	}
	err := n.withRoster(func(r *roster.Roster) error {
		entry, err := r.Revoke(key, chain, target, reason, n.cfg.Wall(), nonce)
		if err != nil {
			return err
		}
		_, err = r.Add(entry)
		return err
	})
	if err != nil {
		return err
	}
	if err := n.keepRoster(); err != nil {
		return fmt.Errorf("%s is revoked and the members here now are told, but it is not on this node's disk, and may be forgotten when all that were told stop: %w", target.Short(), err)
	}
	return nil
}

// keepRoster waits until the roster of now is on the disk.
func (n *Node) keepRoster() error {
	// The effects of a call are performed before the next one runs.
	err := n.loop.do(func(_ machine.Time, _ int64, out []machine.Effect) []machine.Effect { return out })
	if err != nil {
		return err
	}
	return n.saver.flush(rosterFile)
}

// Leave hands the ring over and signs off for good. The blocks have been handed
// over before (Drain). Once the others can hear of it there is no way back, so it
// does not end early.
func (n *Node) Leave() error {
	// The folder comes first: were the word out before it, a crash in between would
	// leave a folder that starts, and becomes a member again unasked. As it is,
	// the others may miss the word, and take the node for one that is away.
	if err := n.home.write(leftFile, nil); err != nil {
		return err
	}
	err := n.withRoster(func(r *roster.Roster) error {
		_, err := r.Add(roster.LeftEntry(n.who.pool.ID(), n.who.node, n.self.Epoch, n.stack.NextSeq()))
		return err
	})
	if err != nil { // nobody has heard of it
		return errors.Join(err, n.home.remove(leftFile))
	}
	return n.goodbye(leaveWait)
}

// goodbye hands the ring over to the neighbours. From here on this process is no
// part of it; whether the node comes back is another matter.
func (n *Node) goodbye(wait time.Duration) error {
	err := n.loop.do(func(now machine.Time, _ int64, out []machine.Effect) []machine.Effect {
		return n.stack.Leave(now, out)
	})
	if err != nil {
		return err
	}
	enough := time.NewTimer(wait)
	defer enough.Stop()
	select {
	case <-n.left:
	case <-enough.C: // the others find out by themselves
	}
	return nil
}

// leaveWait bounds how long a node that leaves waits for its neighbours to take
// its arc over.
const leaveWait = 10 * time.Second
