package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
	"golang.org/x/crypto/chacha20poly1305"
)

// Sealer seals blocks under one member secret. It keeps hashing state, so each
// goroutine needs its own. The blocks it returns are fresh slices that it
// never touches again.
type Sealer struct {
	secret Secret
	hash   *blake3.Hasher
	verify deriver // r → v
	read   deriver // r → key of body and section B
	clear  bool
}

// NewSealer returns a Sealer whose blocks are sealed with suite 1.
func NewSealer(s Secret) *Sealer {
	h, err := blake3.NewKeyed(s[:])
	if err != nil {
		panic("seal: " + err.Error()) // a Secret has the only length it refuses others for
	}
	return &Sealer{secret: s, hash: h, verify: newDeriver(verifyContext), read: newDeriver(readContext)}
}

// NewClearSealer returns a Sealer whose blocks stay clear (suite 0): kind 1
// for data, zero keys.
func NewClearSealer() *Sealer { return &Sealer{verify: newDeriver(verifyContext), clear: true} }

// Data makes a data block of plain, which it does not keep. Equal secret,
// plain and salt give the same block.
func (s *Sealer) Data(plain []byte, salt uint8) (block []byte, r ReadKey, err error) {
	if len(plain) > MaxPlain {
		return nil, r, fmt.Errorf("seal: data of %d bytes: %w", len(plain), ErrTooLarge)
	}
	if s.clear {
		block = make([]byte, 0, HeaderSize+len(plain))
		block = Header{KindRaw, Clear, salt}.Append(block)
		return append(block, plain...), r, nil
	}
	block = make([]byte, 0, Overhead+len(plain))
	block = Header{KindData, AES, salt}.Append(block)
	r = s.readKey(block, plain)
	key := s.read.key(r)
	return aead(&key).Seal(block, zeroNonce[:], plain, block), r, nil
}

// readKey is r over the parts, in order: the only source of keys of suite 1.
func (s *Sealer) readKey(parts ...[]byte) (r ReadKey) {
	s.hash.Reset()
	for _, p := range parts {
		_, _ = s.hash.Write(p)
	}
	s.hash.Sum(r[:0])
	return r
}

var zeroNonce [12]byte

func aead(key *[32]byte) cipher.AEAD {
	c, err := aes.NewCipher(key[:])
	if err != nil {
		panic("seal: " + err.Error()) // 32 bytes are a key of AES-256
	}
	g, err := cipher.NewGCM(c)
	if err != nil {
		panic("seal: " + err.Error()) // AES has the block size that GCM needs
	}
	return g
}

// OpenData opens a data block, sealed or clear, and appends the plaintext to
// dst, which must not overlap block. A zero r opens clear blocks only, any
// other r sealed ones only.
func OpenData(dst, block []byte, r ReadKey) ([]byte, error) {
	h, err := ParseHeader(block)
	if err != nil {
		return nil, err
	}
	head, body := block[:HeaderSize], block[HeaderSize:]
	switch {
	case h.Kind == KindRaw && h.Suite == Clear && r == ReadKey{}:
		if len(body) > MaxPlain {
			return nil, fmt.Errorf("%w: %d bytes of data", ErrBlock, len(body))
		}
		return append(dst, body...), nil
	case h.Kind == KindData && h.Suite == AES && r != ReadKey{}:
		if len(body) > MaxPlain+tagSize {
			return nil, fmt.Errorf("%w: %d bytes of data", ErrBlock, len(body)-tagSize)
		}
		key := r.body()
		plain, err := aead(&key).Open(dst, zeroNonce[:], body, head)
		if err != nil {
			return nil, ErrSeal
		}
		return plain, nil
	}
	return nil, fmt.Errorf("%w: kind %d of suite %d where data was expected", ErrBlock, h.Kind, h.Suite)
}

// Reseal makes the block that plain gives under the salt and the key of a
// block sealed before: its bytes, if plain is what that block held. It lets a
// reader, who has no secret, tell whether bytes on its disk are those of a
// GUID. The key seals no second plaintext for anybody to see: a caller only
// hashes the result, and drops it.
func Reseal(dst, plain []byte, salt uint8, r ReadKey) []byte {
	if r == (ReadKey{}) {
		return append(Header{KindRaw, Clear, salt}.Append(dst), plain...)
	}
	at := len(dst)
	dst = Header{KindData, AES, salt}.Append(dst)
	key := r.body()
	return aead(&key).Seal(dst, zeroNonce[:], plain, dst[at:at+HeaderSize])
}

// SealChosen makes a block of any kind under a key that was chosen, not
// derived from the content: suite 2, nonce drawn from random.
func SealChosen(random io.Reader, key *[32]byte, kind Kind, salt uint8, plain []byte) ([]byte, error) {
	if len(plain) > MaxPlain {
		return nil, fmt.Errorf("seal: %d bytes: %w", len(plain), ErrTooLarge)
	}
	block := make([]byte, HeaderSize+nonce2, overhead2+len(plain))
	Header{kind, XChaCha, salt}.Append(block[:0])
	nonce := block[HeaderSize:]
	if _, err := io.ReadFull(random, nonce); err != nil {
		return nil, fmt.Errorf("seal: nonce: %w", err)
	}
	return xchacha(key).Seal(block, nonce, plain, block[:HeaderSize]), nil
}

// OpenChosen opens what SealChosen made. The plaintext is a fresh slice.
func OpenChosen(key *[32]byte, kind Kind, block []byte) ([]byte, error) {
	h, err := ParseHeader(block)
	if err != nil {
		return nil, err
	}
	if h.Kind != kind || h.Suite != XChaCha || len(block) < overhead2 {
		return nil, fmt.Errorf("%w: kind %d of suite %d, %d bytes", ErrBlock, h.Kind, h.Suite, len(block))
	}
	plain, err := xchacha(key).Open(nil, block[HeaderSize:HeaderSize+nonce2], block[HeaderSize+nonce2:], block[:HeaderSize])
	if err != nil {
		return nil, ErrSeal
	}
	return plain, nil
}

func xchacha(key *[32]byte) cipher.AEAD {
	c, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("seal: " + err.Error()) // 32 bytes are its key
	}
	return c
}
