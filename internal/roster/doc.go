// Package roster knows who is a member of the pool. It is a pure machine: a set
// of signed entries that only grows, merged by union and kept equal among the
// members by exchange, and the answers that can be read off it.
//
// # Entries
//
//	certificate  an admin took a node in        signed by the admin or the root key
//	ready        a node has joined; its handle  signed by the node
//	left         a node has gone for good       signed by the node
//	revoked      a node is thrown out           signed by an admin or the root key
//
// Of a node's ready and left the newest counts: by boot epoch, then by sequence
// number. A member is counted from its first ready until it has left or been
// revoked: one that took its certificate and never came up must not raise the
// write quorum of a small pool.
//
// # Revocation
//
// A revocation names a node's key, for ever; the serial in it says which
// certificate was meant, but a stolen key is no better under a renewed one. The
// node can come back under a new key.
//
// Those whom a revoked admin admitted stay; its certificates first seen later
// are refused. "First seen" must not depend on who saw what first, or rosters
// would differ for ever. So the revocation of an admin, which the root key
// signs, lists what stands of the admin's entries: those known to the revoking
// node. The list holds tags made under a nonce drawn for the occasion, so that
// the admin could not have prepared two entries with one tag. Several
// revocations of one admin leave what all of them list. Hence what stands is a
// function of the union of what anybody ever said, whatever the order: merging
// is commutative and idempotent, and rosters that exchange become equal.
// (Deviation from 20-dht §7, which leaves "later" open:
// a member that the revoked admin took in elsewhere less than one exchange
// before the revocation has to join again.)
//
// An admin cannot revoke an admin; such an entry has no effect.
//
// # Exchange
//
// New entries are passed on to all neighbours at once, so that a revocation is
// everywhere within seconds. What that misses is found by comparing digests:
// with a random neighbour once a minute, and whenever two nodes meet.
//
//	A  Digest   →  B      equal: done
//	A  ←  Buckets  B      256 tags, one for the entries whose tag begins with that byte
//	A  Have     →  B      A's tags in the buckets that differ
//	A  ←  Entries  B      what A lacks
//	A  ←  Have     B      if B lacks any:
//	A  Entries  →  B      what B lacks
//
// # Bounds
//
// At most MaxNodes nodes in the life of a pool, a few entries each. What does
// not fit is refused and traced. If a rogue admin fills the roster, the root
// key is still heard, and the revocation frees what the admin took. MaxKeep of
// its entries can stand: those of counted members first, then the oldest.
package roster
