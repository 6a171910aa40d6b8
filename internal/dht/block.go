package dht

import (
	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// Bounds of what is stored, in bytes (20-dht §1).
const (
	HeaderSize   = 8
	MaxBlock     = 1<<20 + 64 // a content block with its header
	MaxValue     = 64 << 10   // the value of a signed block
	MaxSalt      = 64
	MaxReplicas  = 8         // k at most
	MaxPerOwner  = 64        // claims of one owner on one block
	removedLen   = 1<<32 - 1 // value length of a Signed record that removes
	maxFuture    = 5 * 60 * 1000
	blockMagic   = "ATB1"
	signedPrefix = "atoll/signed/1"
)

// GUIDOf names a content block by its bytes, header included.
func GUIDOf(block []byte) id.GUID { return blake3.Sum256(block) }

// SignedGUID names the signed block of an owner key and salt.
func SignedGUID(owner [32]byte, salt []byte) id.GUID {
	b := make([]byte, 0, len(signedPrefix)+32+MaxSalt)
	b = append(b, signedPrefix...)
	b = append(b, owner[:]...)
	b = append(b, salt...)
	return blake3.Sum256(b)
}

// CheckHeader reports whether block may be stored: a header of the form
// "ATB1" kind suite salt 0, so that no preimage of another kind of GUID passes
// for a block, and a length within bounds.
func CheckHeader(block []byte) bool {
	return len(block) >= HeaderSize && len(block) <= MaxBlock &&
		string(block[:4]) == blockMagic && block[7] == 0
}
