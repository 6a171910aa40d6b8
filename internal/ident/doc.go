// Package ident holds who is who: self-certifying node identities, the pool
// and its certificates, invites, and the records exchanged while two nodes
// meet or one joins.
//
// # Vocabulary
//
// A node's GUID is the hash of its Ed25519 key, so nobody can take the GUID of
// another (Coulouris et al., 5th ed., §10.4 and §11.3.4; Castro et al., OSDI
// 2002, "Secure node identifier assignment"). An owner key signs what a person
// stores; it may be named by several nodes of that person.
//
// A pool is a root key and a nonce. The root key makes and revokes admins;
// admins certify and revoke members. A chain is a certificate with the one that
// proves its issuer: root → admin, or root → admin → member, never longer.
//
// An invite names the pool, its root key by hash, the admin who will answer, and
// a token. A join request proves knowledge of the token without showing it, and
// binds everything it says to the token and the issuer: who forwards it can
// alter nothing and use it for nothing.
//
// # Signatures
//
// What is signed is domain tag ‖ record. Tags look like "atoll/cert/1"; no tag
// is the beginning of another, so a signature made for one purpose never
// passes for another.
//
// # Clocks
//
// Wall time is data, in Unix ms. Clocks are wrong more often than certificates
// are forged, so:
//
//   - A certificate is taken up to Skew (a day) before its first and after its
//     last moment. Before: ErrClock, with both times in the message. After:
//     ErrExpired, likewise.
//   - Two nodes that meet tell each other the time. A difference over
//     MaxClockDiff (5 min, the bound for the stamps of stored blocks) is ErrClock
//     from CompareClocks: it stops a join, where a person is there to set the
//     clock, and is a warning between members, who stay reachable.
//   - Whether an invite has expired is for the issuer's clock alone to say.
//
// # Purity
//
// Nothing here reads a clock, a disk or a random source of its own. Records are
// canonical: what a decoder takes, the encoder gives back byte for byte.
package ident
