// Package seal makes and opens what leaves a client: sealed content blocks,
// the manifests that join them into files, and the links that name files. All
// are pure values; transfer and storage are the business of package files.
//
// Convergent encryption follows Tahoe-LAFS and Farsite: the key of a block is
// derived from its content and a secret of the member, so one member's equal
// blocks are stored once, and nobody else can confirm a guess of the content.
//
// A block, as stored and named by the BLAKE3-256 of all its bytes:
//
//	0      4     5      6     7     8
//	"ATB1" kind  suite  salt  0     body …
//
//	suite 0  body = plaintext
//	suite 1  body = AES-256-GCM(key, zero nonce, AAD header, plaintext) ‖ tag 16
//	suite 2  body = nonce 24 ‖ XChaCha20-Poly1305(key, nonce, AAD header, plaintext) ‖ tag 16
//
// Keys of suite 1 come from one derivation only, and so seal one plaintext:
//
//	r = keyed-BLAKE3(member secret, header ‖ plaintext)
//	v = derive("atoll/verify/1", r)      opens section A of a manifest
//	    derive("atoll/read/1", r)        opens section B, and the body of a data block
//
// v follows from r, not the reverse. That the body of a data block, too, is
// sealed with the derived key, and never with r itself, is a choice of ours
// where 20-dht §5 leaves it open: one rule for all, and r is no cipher's key.
// Any other key (a volume's, a log's) uses suite 2, whose nonce is random.
package seal

import (
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// Bounds of a block in bytes (20-dht §1).
const (
	HeaderSize = 8
	MaxPlain   = 1 << 20           // plaintext of a data block
	MaxBlock   = MaxPlain + 64     // stored block, header included
	Overhead   = HeaderSize + 16   // what suite 1 adds to a plaintext
	overhead2  = Overhead + nonce2 // what suite 2 adds
	tagSize    = 16
	nonce2     = 24
)

// Kind says what a block holds.
type Kind uint8

// Kinds of this package. 16–20 are Ocean's, 24–31 Ivy's.
const (
	KindRaw      Kind = 1 // clear data
	KindData     Kind = 2 // sealed data
	KindManifest Kind = 3
)

// Suite says how a block is sealed.
type Suite uint8

// Suites.
const (
	Clear   Suite = 0
	AES     Suite = 1 // AES-256-GCM, derived key, zero nonce
	XChaCha Suite = 2 // XChaCha20-Poly1305, chosen key, random nonce
)

// Errors of blocks and manifests.
var (
	// ErrBlock: the bytes are not a block of the kind, suite or size expected.
	ErrBlock = errors.New("not a valid block")
	// ErrSeal: the body does not open; the key is wrong or the bytes are.
	ErrSeal = errors.New("block does not open with its key")
	// ErrTooLarge: more than MaxPlain bytes were to be put into one block.
	ErrTooLarge = errors.New("too large for one block")
)

// Header is the first 8 bytes of a block.
type Header struct {
	Kind  Kind
	Suite Suite
	Salt  uint8 // raised to give the same content another GUID (file diversion)
}

var magic = [4]byte{'A', 'T', 'B', '1'}

// Append appends the 8 bytes of h to dst.
func (h Header) Append(dst []byte) []byte {
	dst = append(dst, magic[:]...)
	return append(dst, byte(h.Kind), byte(h.Suite), h.Salt, 0)
}

// ParseHeader reads the header of a stored block and checks the block's bounds.
// It accepts kinds of other packages.
func ParseHeader(block []byte) (Header, error) {
	switch {
	case len(block) < HeaderSize:
		return Header{}, fmt.Errorf("%w: %d bytes", ErrBlock, len(block))
	case len(block) > MaxBlock:
		return Header{}, fmt.Errorf("%w: %d bytes, at most %d", ErrBlock, len(block), MaxBlock)
	case [4]byte(block[:4]) != magic:
		return Header{}, fmt.Errorf("%w: starts with %q", ErrBlock, block[:4])
	case block[7] != 0:
		return Header{}, fmt.Errorf("%w: byte 7 is %d, not 0", ErrBlock, block[7])
	case block[4] == 0:
		return Header{}, fmt.Errorf("%w: kind 0", ErrBlock)
	case Suite(block[5]) > XChaCha:
		return Header{}, fmt.Errorf("%w: unknown suite %d", ErrBlock, block[5])
	}
	return Header{Kind: Kind(block[4]), Suite: Suite(block[5]), Salt: block[6]}, nil
}

// BlockGUID returns the name of a stored block: the BLAKE3-256 of its bytes,
// header included, as the command b3sum prints it.
func BlockGUID(stored []byte) id.GUID { return blake3.Sum256(stored) }
