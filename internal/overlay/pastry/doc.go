// Package pastry is a Pastry node as a pure machine: prefix routing over a
// circular space of GUIDs (Rowstron and Druschel, Middleware 2001; Coulouris et
// al., 5th ed., §10.5.1) with the dependability of MSPastry (Castro et al., DSN
// 2004): acknowledged hops, rerouting, proof before eviction. It offers
// kbr.Router to the applications above it.
//
// # Vocabulary
//
// L is the leaf set, R the routing table; p a row, d a column. P and S are the
// two ready neighbours between which a joiner X falls. To and Ts are the
// timeouts of one probe and of a proof of death.
//
// # Where it deviates
//
//   - Joins are leased: a ready node helps one joiner at a time (package ring).
//   - Leaf sets hold ready nodes only; a joiner announces itself when it is
//     ready. MSPastry inserts joiners at their first probe.
//   - Class owned is delivered only under leases from both neighbours.
//   - Prefixes are compared in bits where Figure 10.9, line 8, compares digits:
//     this still satisfies the figure, and lets row widths differ later.
//   - The neighbourhood set M is derived from measured round trips.
//
// # Trace events
//
//	pastry.ready     this node has joined; N: µs since Start
//	pastry.deliver   Key reached its root; N: class
//	pastry.drop      Key ended without delivery; N: hops; Note: why
//	pastry.hop       (Config.TraceHops) Key goes on to Peer; N: hops so far; Note: rule
//	pastry.suspect   Peer is out of routing; N: µs since it was heard
//	pastry.evict     Peer is proven dead; N: µs since the proof began
//	pastry.revive    Peer, once evicted, was heard again; N: µs since then
//	pastry.indirect  Peer answers others, not us
//	pastry.admit     Peer was admitted as our neighbour
//	pastry.misplaced this joiner was offered a place between wrong neighbours; N: leaves
//	pastry.reboot    Peer runs with a later boot epoch; N: the epoch
//	pastry.goodbye   Peer leaves
//	pastry.left      this node has left; N: µs it took
//	pastry.forget    Peer was revoked
//	pastry.epoch     others remember boot N of this node, later than its own
//	pastry.twin      another process speaks with our GUID
//	pastry.stale     a message of an older boot of Peer was ignored
//	pastry.badhandle a handle whose GUID is not that of its key
//	pastry.crowded   Peer, told of by another, found no room
//	pastry.badbody   a routed message of the overlay that does not decode
//	pastry.badsave   the saved table was ignored
package pastry
