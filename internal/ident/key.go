package ident

import (
	"crypto/ed25519"
	"encoding/base32"
	"fmt"
	"io"
	"strings"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// Domain tags of what this package and package roster sign.
const (
	domainPool    = "atoll/poolrecord/1"
	domainCert    = "atoll/cert/1"
	DomainReady   = "atoll/ready/1"
	DomainLeft    = "atoll/left/1"
	DomainRevoked = "atoll/revoked/1"
)

// GUIDOf is the GUID of the node that holds key: BLAKE3-256("atoll/node/1" ‖
// key).
func GUIDOf(key [32]byte) id.GUID { return id.GUID(tagged("atoll/node/1", key[:])) }

// tagged hashes tag ‖ parts. Parts are of fixed length, or the last one is not.
func tagged(tag string, parts ...[]byte) [32]byte {
	h := blake3.New()
	_, _ = h.WriteString(tag) // a hash takes every byte
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// Key is an Ed25519 private key. The zero Key is none. It prints as the first
// digits of its public half, whatever the verb.
type Key struct {
	private ed25519.PrivateKey
	public  [32]byte
}

// NewKey makes a key from 32 bytes of r, which must be a source of secrets:
// crypto/rand in nodes, a seeded stream in simulations.
func NewKey(r io.Reader) (Key, error) {
	var seed [32]byte
	if _, err := io.ReadFull(r, seed[:]); err != nil {
		return Key{}, fmt.Errorf("ident: new key: %w", err)
	}
	return KeyFromSeed(seed), nil
}

// KeyFromSeed is the key with the given RFC 8032 secret.
func KeyFromSeed(seed [32]byte) Key {
	k := Key{private: ed25519.NewKeyFromSeed(seed[:])}
	copy(k.public[:], k.private[32:])
	return k
}

// Seed is the RFC 8032 secret, from which transports make their own form.
func (k Key) Seed() (seed [32]byte) {
	copy(seed[:], k.private.Seed())
	return seed
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.private == nil }

// Public is the public half.
func (k Key) Public() [32]byte { return k.public }

// GUID is that of the node which holds k.
func (k Key) GUID() id.GUID { return GUIDOf(k.public) }

// Sign signs domain ‖ msg.
func (k Key) Sign(domain string, msg []byte) (sig [64]byte) {
	copy(sig[:], ed25519.Sign(k.private, signed(domain, msg)))
	return sig
}

// Verify reports whether sig is that of the holder of pub over domain ‖ msg.
func Verify(pub [32]byte, domain string, msg []byte, sig [64]byte) bool {
	return ed25519.Verify(pub[:], signed(domain, msg), sig[:])
}

func signed(domain string, msg []byte) []byte {
	b := make([]byte, 0, len(domain)+len(msg))
	return append(append(b, domain...), msg...)
}

// Format keeps secrets out of logs.
func (k Key) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "key:%x…", k.public[:4])
}

const (
	keyPrefix   = "atoll-key1:"
	checksumLen = 4
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Encode is the content of a key file, one line: atoll-key1: and base32 of the
// seed and a checksum.
func (k Key) Encode() []byte {
	seed := k.Seed()
	return []byte(armour(keyPrefix, seed[:]) + "\n")
}

// ParseKey reads the content of a key file.
func ParseKey(b []byte) (Key, error) {
	text, ok := strings.CutSuffix(string(b), "\n")
	if !ok {
		return Key{}, fmt.Errorf("%w: the line is not complete", ErrBadKey)
	}
	seed, err := disarm(keyPrefix, text)
	if err != nil || len(seed) != 32 {
		return Key{}, fmt.Errorf("%w: damaged", ErrBadKey)
	}
	return KeyFromSeed([32]byte(seed)), nil
}

// armour renders prefix and the base32 of body ‖ checksum(prefix, body).
func armour(prefix string, body []byte) string {
	sum := tagged(prefix, body)
	return prefix + base32Lower.EncodeToString(append(body[:len(body):len(body)], sum[:checksumLen]...))
}

// disarm is the inverse of armour. Only what armour gives is taken.
func disarm(prefix, text string) ([]byte, error) {
	digits, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return nil, fmt.Errorf("does not begin with %s", prefix)
	}
	b, err := base32Lower.DecodeString(digits)
	if err != nil || len(b) < checksumLen {
		return nil, ErrTyping
	}
	body := b[:len(b)-checksumLen]
	if armour(prefix, body) != text {
		return nil, ErrTyping
	}
	return body, nil
}
