package id

// Bounds of a Handle (10-overlay §1).
const (
	MaxAddrs   = 4  // addresses of one node
	MaxAddrLen = 64 // bytes of one address
)

// Handle is a node handle: all that is needed to recognise and reach a node.
// Handles are immutable once made and are passed by pointer; two handles of
// one GUID differ in Epoch or Addrs only.
type Handle struct {
	GUID  GUID
	Key   [32]byte // Ed25519 public key; GUID is derived from it (package ident)
	Epoch uint32   // boot epoch: raised and synced by the node before its first send
	Addrs []string // opaque to all but the transport: 1–4 of at most 64 bytes
}
