package node

import (
	"context"
	"fmt"
	"time"

	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/roster"
)

// renewEvery is how often the age of the certificate is looked at; a renewal
// that failed is tried again as often.
const renewEvery = 6 * time.Hour

// renewing keeps the certificate young while the node runs: from its 200th day
// on any admin who can be reached is asked for a new one (20-dht §7).
func (n *Node) renewing() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		if n.chain().NeedsRenewal(n.cfg.Wall()) {
			if err := n.renew(); err != nil {
				n.cfg.Log.Warn("certificate not renewed", "err", err, "ends", time.UnixMilli(n.chain().NotAfter()))
			}
		}
		select {
		case <-tick.C:
		case <-n.loop.stop:
			return
		}
	}
}

// renew asks one admin after the other, or with the root key itself.
func (n *Node) renew() error {
	old := n.chain()
	if !n.who.root.IsZero() {
		leaf := old.Leaf()
		chain, err := ident.Certify(n.who.pool, n.who.root, nil, ident.Subject{
			Node: leaf.Node, Owner: leaf.Owner, Role: leaf.Role, Domain: leaf.Domain, Quota: leaf.Quota, Name: leaf.Name,
		}, n.cfg.Wall())
		if err != nil {
			return err
		}
		return n.renewed(chain)
	}
	v, err := n.View()
	if err != nil {
		return err
	}
	question := ident.EncodeQuestion(&ident.RenewRequest{Chain: old})
	last := fmt.Errorf("%w: no admin of the pool", ident.ErrUnavailable)
	for _, m := range v.Roster {
		if m.Cert == nil || m.Cert.Role != ident.Admin || m.Handle == nil || m.Status != roster.Ready || m.GUID == n.GUID() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), n.cfg.JoinTimeout)
		b, proved, err := n.tr.Ask(ctx, m.Handle, question)
		cancel()
		if err == nil && proved != m.Handle.Key {
			err = ident.ErrNotMember
		}
		var a *ident.JoinAnswer
		if err == nil {
			a, err = ident.ParseRenewal(n.who.pool, b, old.Leaf(), n.cfg.Wall())
		}
		if err == nil {
			return n.renewed(a.Chain)
		}
		last = fmt.Errorf("admin %s: %w", v.NameOf(m.GUID), err)
	}
	return last
}

// renewed puts a new certificate into force: on disk, in handshakes, in the
// roster.
func (n *Node) renewed(chain ident.Chain) error {
	n.link.mu.Lock()
	n.who.chain = chain
	n.link.mu.Unlock()
	if err := n.home.saveMembership(n.who); err != nil {
		return err
	}
	n.issuerMu.Lock()
	if n.issuer != nil {
		n.issuer.SetChain(chain)
	}
	n.issuerMu.Unlock()
	return n.withRoster(func(r *roster.Roster) error {
		_, err := r.Add(roster.CertEntry(chain))
		return err
	})
}
