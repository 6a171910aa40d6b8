package seal

import (
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// Secret is a member's own 32 random bytes, from which all keys of its files
// follow. A fresh Secret for one file gives up deduplication for it.
type Secret [32]byte

// ReadKey is r of a block: who has it reads the block and all below it. Zero
// for clear blocks.
type ReadKey [32]byte

// VerifyKey is v of a manifest: who has it finds and checks every block of
// the file, and reads none.
type VerifyKey [32]byte

// NewSecret draws a secret from random.
func NewSecret(random io.Reader) (s Secret, err error) {
	if _, err = io.ReadFull(random, s[:]); err != nil {
		return Secret{}, fmt.Errorf("seal: new secret: %w", err)
	}
	return s, nil
}

// ID tells secrets apart without giving them away: 8 bytes derived from s.
func (s Secret) ID() (short [8]byte) {
	blake3.DeriveKey("atoll/secret-id/1", s[:], short[:])
	return short
}

// IsZero reports whether s was never drawn.
func (s Secret) IsZero() bool { return s == Secret{} }

// Verify returns v, the key that follows from r.
func (r ReadKey) Verify() (v VerifyKey) {
	blake3.DeriveKey(verifyContext, r[:], v[:])
	return v
}

// body returns the key that seals section B and data.
func (r ReadKey) body() (k [32]byte) {
	blake3.DeriveKey(readContext, r[:], k[:])
	return k
}

const (
	verifyContext = "atoll/verify/1"
	readContext   = "atoll/read/1"
)

// deriver derives many keys in one context without an allocation each.
type deriver struct{ h *blake3.Hasher }

func newDeriver(context string) deriver { return deriver{blake3.NewDeriveKey(context)} }

func (d deriver) key(r ReadKey) (k [32]byte) {
	d.h.Reset()
	_, _ = d.h.Write(r[:])
	d.h.Sum(k[:0])
	return k
}

// Format keeps keys out of logs and errors, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secret]") }

// Format keeps keys out of logs and errors, whatever the verb.
func (r ReadKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[read key]") }

// Format keeps keys out of logs and errors, whatever the verb.
func (v VerifyKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[verify key]") }
