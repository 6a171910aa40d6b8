// Package dht is the distributed hash table of Figure 10.4 (Coulouris et al.,
// 5th ed., §10.5.1): put, remove and get of blocks that are replicated on the
// nodes responsible for their GUIDs. It follows PAST (Rowstron and Druschel,
// SOSP 2001) for placement, diversion and the weak remove; CFS (SOSP 2001) and
// DHash++ (NSDI 2004) for fetching from the nearest replica; OpenDHT (SIGCOMM
// 2005) for running over an unchanged overlay; Carbonite (NSDI 2006) for
// repair that counts eagerly and copies lazily; BEP 44 for signed blocks.
//
// # Vocabulary
//
//   - content block: named by the BLAKE3 hash of its bytes; never changes.
//   - signed block: named by owner key and salt; its owner raises seq.
//   - claim: one reason to keep a content block. The bytes go with the last.
//   - tombstone: the signed record that ended a claim. Kept.
//   - set: the k nodes on which a block belongs, in failure domains of their
//     own as far as possible; candidates: those that come next.
//   - coordinator: the node that spreads a put over the set, usually the root.
//   - stand-in: a candidate that holds a copy because a set member was silent.
//   - holder: any node known to have the bytes, in the set or not.
//   - arc: a stretch of the ring all of whose keys have the same set.
//   - unsynced: said of a node on an arc, until it has exchanged keys with
//     those that knew the arc before: it serves what it has, and never says
//     "absent".
//
// # Shape
//
// Node is a pure machine (package machine) and an application of a kbr.Router
// (kbr.Upcalls). Every node is client, coordinator and replica at once; the
// parts talk by messages, to the own node too, so that there is one path.
//
//	client       put.go get.go head.go remove.go signed.go   commands
//	coordinator  coordinator.go                              W of the set
//	replica      replica.go serve.go                         one disk
//	upkeep       arc.go sync.go entry.go stray.go repair.go scrub.go
//	values       record.go message.go index.go
//
// # Deviations
//
// The digests that Merkle anti-entropy compares are sums, modulo 2^128, of the
// tags of the items, with their number: they can be kept up to date in a trie
// at the cost of one path per change, over any stretch of the ring.
package dht
