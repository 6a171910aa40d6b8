package roster

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
)

// Revoke makes the entry that throws a node out; Add puts it into force. key is
// the root key, with no chain, or an admin's node key with that admin's chain.
// nonce is 16 random bytes, drawn now. Errors wrap ErrUnknown or
// ident.ErrForbidden.
func (r *Roster) Revoke(key ident.Key, chain ident.Chain, target id.GUID, reason string, wall int64, nonce [16]byte) ([]byte, error) {
	n := r.nodes[target]
	if n == nil || len(n.certs) == 0 {
		return nil, fmt.Errorf("%w: %s", ErrUnknown, target.Short())
	}
	if err := ident.CheckLabel(reason); err != nil {
		return nil, fmt.Errorf("reason: %w", err)
	}
	v := &Revoked{
		Pool: r.poolID, Node: n.key, Serial: n.cert().Serial, At: wall, Reason: reason, Nonce: nonce, By: key.Public(),
	}
	if v.By == r.pool.Root {
		for _, x := range r.signedBy(n.key) {
			if len(v.Keep) < MaxKeep {
				v.Keep = append(v.Keep, v.keepTag(x.bytes))
			}
		}
		slices.SortFunc(v.Keep, cmpTags)
	} else {
		if len(chain) != 1 || chain.Leaf().Role != ident.Admin || chain.Leaf().Node != v.By {
			return nil, fmt.Errorf("%w: only admins revoke", ident.ErrForbidden)
		}
		if n.admin() {
			return nil, fmt.Errorf("%w: %s is an admin; only the node that founded the pool holds the root key, which revokes admins", ident.ErrForbidden, target.Short())
		}
		v.Chain = chain
	}
	v.Sig = key.Sign(ident.DomainRevoked, v.body())
	return (&Entry{Revoked: v}).Encode(), nil
}

// signedBy returns what an admin signed, in the order in which it shall stand: a
// rogue that has signed more than MaxKeep must be revocable all the same, at the
// expense of what it made last and of what nobody uses.
func (r *Roster) signedBy(key [32]byte) []*held {
	class := func(x *held) int {
		switch {
		case x.Revoked != nil:
			return 1
		case r.nodes[x.Chain.Leaf().GUID()].counted():
			return 0
		}
		return 2
	}
	at := func(x *held) int64 {
		if x.Revoked != nil {
			return x.Revoked.At
		}
		return x.Chain.Leaf().NotBefore
	}
	all := make([]*held, 0, len(r.by[key]))
	for _, tag := range r.by[key] {
		all = append(all, r.byTag[tag])
	}
	slices.SortFunc(all, func(a, b *held) int {
		return cmp.Or(cmp.Compare(class(a), class(b)), cmp.Compare(at(a), at(b)), cmpTags(a.tag, b.tag))
	})
	return all
}

// Seeds returns entries for a node that joins, at most limit bytes of them: the
// revocations, then certificates and states of counted members, those nearest to
// the newcomer first. The rest it learns by exchange.
func (r *Roster) Seeds(newcomer id.GUID, limit int) [][]byte {
	var seeds [][]byte
	take := func(x *held) bool {
		if limit -= len(x.bytes) + 2; limit < 0 {
			return false
		}
		seeds = append(seeds, x.bytes)
		return true
	}
	for _, x := range r.sorted(func(x *held) bool { return x.Revoked != nil }) {
		if len(x.bytes) < limit/2 && !take(x) {
			return seeds
		}
	}
	for _, g := range r.Nearest(newcomer, 256) {
		n := r.nodes[g]
		if !take(n.certs[0]) || !take(n.state) {
			return seeds
		}
	}
	return seeds
}

// sorted returns the entries for which want holds, in order of kind, then tag.
func (r *Roster) sorted(want func(*held) bool) []*held {
	var some []*held
	for _, x := range r.byTag {
		if want(x) {
			some = append(some, x)
		}
	}
	sortHeld(some)
	return some
}

// sortHeld puts entries into the order in which none refers to a later one.
func sortHeld(some []*held) {
	slices.SortFunc(some, func(a, b *held) int {
		if c := rankOf(a.bytes) - rankOf(b.bytes); c != 0 {
			return c
		}
		return bytes.Compare(a.tag[:], b.tag[:])
	})
}

// rankOf is an entry's place in that order: who is thrown out, who was taken in,
// who says what. What is no entry comes last, to be refused.
func rankOf(entry []byte) int {
	if len(entry) > 0 {
		switch Kind(entry[0]) {
		case KindRevoked:
			return 0
		case KindCert:
			return 1
		}
	}
	return 2
}
