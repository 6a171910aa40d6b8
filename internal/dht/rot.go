package dht

import (
	"errors"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

// Rot. What is on the disk may go bad unseen. Whoever reads it (a client, a put
// of the same again, a comparison, the scrub) finds out: from then on the copy is
// neither served nor counted, and fetched again. Of a signed block the version
// stays known, so that its seq does not fall: the record is taken back only as it
// was acknowledged here, or of a higher seq.

// badBlock: the bytes of g are not on the disk as they should be.
func (n *Node) badBlock(g id.GUID, err error) {
	if !n.damage(err) {
		return
	}
	e := n.tree.get(g)
	if e == nil || !e.have() || n.locks[g] != nil {
		return // it went, or is being written, while it was read
	}
	n.markBad(e)
}

// damage: err is of one record, not of the disk, which stops the node.
func (n *Node) damage(err error) bool {
	if err != nil && !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNotFound) {
		n.halt(err)
		return false
	}
	return true
}

func (n *Node) markBad(e *entry) {
	n.stats.Corrupt++
	n.trace("dht.corrupt", id.GUID{}, e.guid, int64(e.size), "")
	e.flags = e.flags&^flagHave | flagBad
	n.retag(e)
	n.touch(e.guid)
	n.pulseSoon()
}

// readSigned reads the record of g, and the fork there may be, whose lock the
// caller has. None: there is none, or it is bad; if that was not known yet, the set
// is told, and asked for it.
func (n *Node) readSigned(g id.GUID, f func(recs []Signed)) {
	e := n.tree.get(g)
	if e == nil || !e.signed() || !e.have() {
		f(nil)
		return
	}
	n.load(n.recordKeys(e), func(vs [][]byte, err error) {
		var recs []Signed
		for _, b := range vs {
			if s, bad := DecodeSigned(b); bad == nil && err == nil {
				recs = append(recs, s)
			}
		}
		if len(vs) > 0 && len(recs) == len(vs) && e.ver().is(versionOf(&recs[0])) {
			f(recs)
			return
		}
		if n.damage(err) {
			n.markBad(e)
			n.tellSet(g)
		}
		f(nil)
	})
}

// proveSigned is readSigned for those who do not have the lock.
func (n *Node) proveSigned(g id.GUID, f func(recs []Signed)) {
	if !n.exclusive(g, func() {
		n.readSigned(g, func(recs []Signed) {
			n.release(g)
			f(recs)
		})
	}) {
		f(nil)
	}
}
