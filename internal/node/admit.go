package node

import (
	"context"
	"errors"
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/roster"
)

// seedHandles is how many members a joiner is told of.
const seedHandles = 8

// answer answers Identify, JoinRequest, RenewRequest and Standing (20-dht §7). A refusal
// is an answer too; only what is no question at all is an error.
func (n *Node) answer(ctx context.Context, key [32]byte, question []byte) ([]byte, error) {
	q, err := ident.ParseQuestion(question)
	if err != nil {
		return nil, err
	}
	wall := n.cfg.Wall()
	switch q := q.(type) {
	case ident.Identify:
		me := ident.Identity{Wall: wall, Pool: n.who.pool, Chain: n.chain()}
		return me.Encode(), nil
	case *ident.JoinRequest:
		if q.Issuer != n.GUID() {
			return n.passOn(ctx, q.Issuer, question)
		}
		return n.admitted(q.Node, func(i *ident.Issuer) (ident.Chain, bool, error) { return i.Issue(q, wall) })
	case *ident.RenewRequest:
		if q.Chain.Leaf().Node != key {
			return ident.Refuse(fmt.Errorf("%w: a renewal for another node's key", ident.ErrForbidden), wall).Encode(), nil
		}
		return n.admitted(key, func(i *ident.Issuer) (ident.Chain, bool, error) {
			c, err := i.Renew(q, wall)
			return c, false, err
		})
	case *ident.Standing:
		var g ident.Grounds
		if q.Chain.Leaf().Node != key {
			return nil, fmt.Errorf("%w: the standing of another node's key", ident.ErrForbidden)
		}
		err := n.withRoster(func(r *roster.Roster) error {
			if g.Entry = r.Grounds(q.Chain); g.Entry == nil {
				g.Entry = r.Word(q.Chain.Leaf().GUID()) // perhaps of a later boot, which the asker would have to know of
			}
			return nil
		})
		return g.Encode(), err
	}
	return nil, errors.New("not a question")
}

// passOn asks the issuer on behalf of a joiner whose invite led here.
func (n *Node) passOn(ctx context.Context, issuer id.GUID, question []byte) ([]byte, error) {
	to := n.handleOf(issuer)
	if to == nil {
		return ident.Refuse(fmt.Errorf("%w: the admin %s who gave this invite; ask another admin for a new one",
			ident.ErrUnavailable, issuer.Short()), n.cfg.Wall()).Encode(), nil
	}
	answer, proved, err := n.tr.Ask(ctx, to, question)
	if err != nil || proved != to.Key {
		return ident.Refuse(fmt.Errorf("%w: the admin %s who gave this invite does not answer; start its node, or ask another admin for a new invite",
			ident.ErrUnavailable, issuer.Short()), n.cfg.Wall()).Encode(), nil
	}
	return answer, nil
}

// admitted has the issuer make a certificate, makes the burnt use durable, and
// answers. The new certificate goes into the roster before the answer leaves,
// so that whoever the joiner meets next can hear of it from us.
func (n *Node) admitted(node [32]byte, issue func(*ident.Issuer) (ident.Chain, bool, error)) ([]byte, error) {
	wall := n.cfg.Wall()
	chain, err := n.issue(issue)
	if err != nil {
		return ident.Refuse(err, wall).Encode(), nil
	}
	a := ident.JoinAnswer{Wall: wall, Pool: n.who.pool, Chain: chain}
	err = n.withRoster(func(r *roster.Roster) error {
		if _, err := r.Add(roster.CertEntry(chain)); err != nil {
			return err
		}
		a.Seeds = r.Seeds(ident.GUIDOf(node), ident.MaxAnswer*3/4)
		return nil
	})
	if err != nil {
		return ident.Refuse(err, wall).Encode(), nil
	}
	a.Handles = append(n.neighbours(seedHandles), n.link.handle())
	return a.Encode(), nil
}

// issue runs an issuer under its lock and keeps its state: also when an earlier
// change could not be, for whoever asks again gets the same certificate, unchanged.
func (n *Node) issue(f func(*ident.Issuer) (ident.Chain, bool, error)) (ident.Chain, error) {
	n.issuerMu.Lock()
	defer n.issuerMu.Unlock()
	if n.issuer == nil {
		return nil, fmt.Errorf("%w: only admins invite; ask one of them (atoll peers), or to be invited as one", ident.ErrForbidden)
	}
	chain, changed, err := f(n.issuer)
	if err != nil {
		return nil, err
	}
	if changed || n.unkept {
		err := n.home.write(inviteFile, n.issuer.Encode())
		if n.unkept = err != nil; n.unkept {
			return nil, fmt.Errorf("%w: the invite could not be kept on its disk: %w", ident.ErrInternal, err)
		}
	}
	return chain, nil
}
