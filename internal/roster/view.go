package roster

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
)

// view is what the set says about the pool, computed when first asked for after
// a change.
type view struct {
	counted []id.GUID // ascending
	owners  map[[32]byte]bool
	digest  [32]byte
}

func (r *Roster) now() *view {
	if r.view != nil {
		return r.view
	}
	v := &view{owners: make(map[[32]byte]bool)}
	for g, n := range r.nodes {
		if n.counted() {
			v.counted = append(v.counted, g)
		}
		if !n.revoked() {
			for _, x := range n.certs {
				v.owners[x.Chain.Leaf().Owner] = true
			}
		}
	}
	slices.SortFunc(v.counted, id.GUID.Cmp)
	h := blake3.New()
	_, _ = h.WriteString("atoll/members/1") // a hash takes every byte
	for _, g := range v.counted {
		d := r.Domain(g)
		_, _ = h.Write(g[:])
		_, _ = h.Write([]byte{byte(len(d))})
		_, _ = h.WriteString(d)
	}
	h.Sum(v.digest[:0])
	r.view = v
	return v
}

// Count is the number of members that were ready once and have not left or been
// revoked.
func (r *Roster) Count() int { return len(r.now().counted) }

// Digest is a hash of what placement and quorums rest on: the counted members
// and their failure domains. Unlike SetDigest it stays the same when a member
// restarts or a certificate is renewed.
func (r *Roster) Digest() [32]byte { return r.now().digest }

// Has reports whether g is a member: certified, not revoked, not gone. It need
// not have been ready yet, unlike those that Count counts.
func (r *Roster) Has(g id.GUID) bool { n := r.nodes[g]; return n != nil && n.member() }

// Revoked reports whether g was thrown out, or taken in only by an admin who
// was and whose word for it does not stand.
func (r *Roster) Revoked(g id.GUID) bool { n := r.nodes[g]; return n != nil && n.barred }

// TakeRevoked returns the nodes that have been revoked since the last call: the
// host drops their links, the overlay forgets them.
func (r *Roster) TakeRevoked() []id.GUID {
	lost := r.lost
	r.lost = nil
	return slices.DeleteFunc(lost, func(g id.GUID) bool { n := r.nodes[g]; return n != nil && !n.barred })
}

// Domain is the failure domain of g, of which all members say the same: that of
// its newest certificate, or else the node itself.
func (r *Roster) Domain(g id.GUID) string {
	if n := r.nodes[g]; n != nil {
		if c := n.cert(); c != nil && c.Domain != "" {
			return c.Domain
		}
	}
	return g.String()
}

// Nearest returns up to n counted members, the nearest to key first. The slice
// is the caller's.
func (r *Roster) Nearest(key id.GUID, n int) []id.GUID {
	return r.nearest(key, n, func(id.GUID) bool { return true })
}

// Elders is Nearest among the members of whom all have heard by now: this node
// has known them for age, by a clock that nobody sets. Of those it met as it
// started, less than age ago, the oldest certificate must be older than that by
// the wall clock (Unix ms).
func (r *Roster) Elders(key id.GUID, n int, now machine.Time, wall int64, age machine.Duration) []id.GUID {
	return r.nearest(key, n, func(g id.GUID) bool {
		m := r.nodes[g]
		known := r.started
		if m.heard != 0 {
			known = m.heard
		}
		return now.Sub(known) >= age || m.heard == 0 && m.since() < wall-age.Milliseconds()
	})
}

func (r *Roster) nearest(key id.GUID, n int, of func(id.GUID) bool) []id.GUID {
	all := r.now().counted
	near := make([]id.GUID, 0, max(0, min(n, len(all))))
	// The nearest lie on both sides of key: walk outwards.
	hi := sort.Search(len(all), func(i int) bool { return !all[i].Less(key) })
	lo := hi - 1
	for range all {
		if len(near) >= n {
			break
		}
		g, b := all[(lo+len(all))%len(all)], all[hi%len(all)]
		if id.CmpDist(key, g, b) <= 0 {
			lo--
		} else {
			g = b
			hi++
		}
		if of(g) {
			near = append(near, g)
		}
	}
	return near
}

// Handle is the last known handle of g; nil if it has never been seen, has left
// or is revoked.
func (r *Roster) Handle(g id.GUID) *id.Handle {
	n := r.nodes[g]
	if n == nil || !n.member() {
		return nil
	}
	return n.handle()
}

// since is when the oldest certificate kept of a counted node begins, Unix ms.
func (n *node) since() int64 { return n.certs[len(n.certs)-1].Chain.Leaf().NotBefore }

func (n *node) handle() *id.Handle {
	if n.state == nil || n.seen != nil && n.seen.Epoch > n.state.State.Epoch {
		return n.seen
	}
	return n.state.State.Handle
}

// Saw remembers a handle that a handshake has proved. It is not passed on: the
// node's own ready entry is.
func (r *Roster) Saw(h *id.Handle) {
	if n := r.nodes[h.GUID]; n != nil && (n.seen == nil || h.Epoch >= n.seen.Epoch) {
		n.seen = h
	}
}

// OwnerOK reports whether a certificate names the owner key, of a node that is
// not revoked. Owners whose nodes have left remain: what they stored does too.
func (r *Roster) OwnerOK(owner [32]byte) bool { return r.now().owners[owner] }

// CheckChain returns an error that wraps ident.ErrRevoked if the chain's node is
// revoked, or its certificate was signed by a revoked admin and does not stand.
// It is the Revoked of an ident.Gate.
func (r *Roster) CheckChain(c ident.Chain) error {
	x := r.against(c)
	if x == nil {
		return nil
	}
	v := x.Revoked
	by := "the pool's root key"
	if v.Chain != nil {
		by = fmt.Sprintf("%s (%s)", v.Chain.Leaf().Name, ident.GUIDOf(v.By).Short())
	}
	on := time.UnixMilli(v.At).UTC().Format("2006-01-02 15:04 UTC")
	why := ""
	if v.Reason != "" {
		why = ": " + v.Reason
	}
	if g := c.Leaf().GUID(); g != ident.GUIDOf(v.Node) {
		return fmt.Errorf("%w, who was revoked by %s on %s%s (%s)", ErrDisavowed, by, on, why, g.Short())
	}
	return fmt.Errorf("%w by %s on %s%s", ident.ErrRevoked, by, on, why)
}

// Grounds is the revocation by which CheckChain refuses c, for the node that c is
// about; nil if c stands. The slice must not be changed.
func (r *Roster) Grounds(c ident.Chain) []byte {
	if x := r.against(c); x != nil {
		return x.bytes
	}
	return nil
}

// against is the revocation that bars a chain: of its node, or else of the admin
// who signed it.
func (r *Roster) against(c ident.Chain) *held {
	if n := r.nodes[c.Leaf().GUID()]; n != nil {
		if x := n.ban(); x != nil {
			return x
		}
	}
	if len(c) != 2 {
		return nil
	}
	e := &Entry{Chain: c}
	return r.disavowal(e, e.Encode())
}

// Status is where a node stands.
type Status string

// Statuses.
const (
	Certified   Status = "certified" // has a certificate, was never ready
	Ready       Status = "ready"
	Left        Status = "left"
	WasRevoked  Status = "revoked"
	unCertified Status = "" // only spoken of by others
)

// Info is what the roster knows of a node.
type Info struct {
	GUID   id.GUID
	Status Status
	Cert   *ident.Certificate
	Chain  ident.Chain
	Handle *id.Handle // nil: none known
}

// List returns all nodes that have or had a certificate, in order of GUID.
func (r *Roster) List() []Info {
	all := make([]Info, 0, len(r.nodes))
	for g := range r.nodes {
		if i, ok := r.Info(g); ok {
			all = append(all, i)
		}
	}
	slices.SortFunc(all, func(a, b Info) int { return a.GUID.Cmp(b.GUID) })
	return all
}

// Info is what List says of g.
func (r *Roster) Info(g id.GUID) (Info, bool) {
	n := r.nodes[g]
	if n == nil || n.status() == unCertified {
		return Info{}, false
	}
	i := Info{GUID: g, Status: n.status(), Handle: r.Handle(g)}
	if len(n.certs) > 0 {
		i.Chain, i.Cert = n.certs[0].Chain, n.cert()
	}
	return i, true
}

func (n *node) status() Status {
	switch {
	case n.revoked():
		return WasRevoked
	case len(n.certs) == 0:
		return unCertified
	case n.left():
		return Left
	case n.state != nil:
		return Ready
	}
	return Certified
}

// Admins counts the members that can invite and revoke.
func (r *Roster) Admins() (count int) {
	for _, n := range r.nodes {
		if n.member() && n.admin() {
			count++
		}
	}
	return count
}
