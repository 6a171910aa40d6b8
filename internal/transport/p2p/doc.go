// Package p2p implements transport.Transport on libp2p: TCP with TLS 1.3 and
// yamux, QUIC, circuit relay v2 and hole punching, between nodes that know
// each other by Ed25519 key. The network is closed: there is no bootstrap
// list and no public relay; only addresses that came in a node handle, an
// invite or the configuration are dialled, and of those only what the reach
// policy allows (see reach.go). Discovery by multicast DNS is off unless asked
// for, and adds addresses of members in our own subnets (see discover.go).
//
// # Link
//
// A link is one stream of protocol /atoll/link/1 on one libp2p connection,
// opened by the side that wants to send. It starts with the handshake and is
// then the control stream of both directions:
//
//	opener → other   frame(hello)
//	other  → opener  frame(1 ‖ hello)   or  frame(0 ‖ reason)
//	opener → other   frame(1)           or  frame(0 ‖ reason)
//	then both ways   frame(message) …
//
// frame is length u32 · bytes (package wire). Each side delivers frames only
// after its own Admit has accepted the other and the third message has said
// so of itself. Bulk frames travel on up to four streams of /atoll/bulk/1 per
// direction, one way each, on a connection that has a link.
//
// # Two links, one writer
//
// When two nodes dial each other at once, two links come to be. Nothing is
// torn down: both sides read both links, and both pick the same one to write
// on (links are ordered the same way at both ends, see link.better), so the
// other falls idle and closes. A writer that moves to another link ends its
// frames on the old one with an empty frame; the far side delivers from the
// new link only once it has seen that mark, so control frames keep their
// order. The same move takes a peer from a relayed to a hole-punched path.
//
// # Asking
//
// /atoll/ask/1 carries one question and one answer, before membership:
//
//	asker  → other   frame(question ≤ MaxAsk), end of stream
//	other  → asker   frame(1 ‖ answer)  or  frame(0 ‖ reason)
//
// # Deviations
//
// libp2p dials peers by id, but an invite names addresses only: Ask first
// makes a bare TLS handshake to learn the key (probe.go), then dials that
// key.
package p2p
