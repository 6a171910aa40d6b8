package ident

import (
	"encoding/hex"
	"fmt"

	"atoll.example/atoll/internal/wire"
)

// PoolID names a pool: BLAKE3-256("atoll/pool/1" ‖ root key ‖ nonce).
type PoolID [32]byte

// String returns 64 hexadecimal digits.
func (p PoolID) String() string { return hex.EncodeToString(p[:]) }

// Short returns the first 8 digits, for people's eyes only.
func (p PoolID) Short() string { return hex.EncodeToString(p[:4]) }

// MarshalText renders String.
func (p PoolID) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Tag is the pool's mark in links.
func (p PoolID) Tag() [4]byte { return [4]byte(p[:4]) }

// Overlay is the routing overlay that a pool runs on.
type Overlay uint8

// Overlays.
const (
	Pastry   Overlay = 1
	Tapestry Overlay = 2
)

func (o Overlay) String() string {
	switch o {
	case Pastry:
		return "pastry"
	case Tapestry:
		return "tapestry"
	}
	return fmt.Sprintf("overlay %d", uint8(o))
}

// ParseOverlay is the inverse of String.
func ParseOverlay(s string) (Overlay, error) {
	for _, o := range []Overlay{Pastry, Tapestry} {
		if o.String() == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("no overlay is called %q: pastry or tapestry", s)
}

// MaxK is the largest replication a pool may ask for.
const MaxK = 8

// Pool is the record that founds a pool; its parameters travel signed by the
// root key, so that no member can change them for another.
//
//	version u8 = 1 · root key 32 · nonce 16 · k u8 · overlay u8 · name u8+≤64 · signature 64
type Pool struct {
	Root    [32]byte
	Nonce   [16]byte
	K       int     // copies of each block, 1–MaxK
	Overlay Overlay // which engine routes
	Name    string  // for people
	Sig     [64]byte
}

// NewPool founds a pool.
func NewPool(root Key, nonce [16]byte, name string, k int, overlay Overlay) (*Pool, error) {
	if err := CheckLabel(name); err != nil {
		return nil, fmt.Errorf("pool name: %w", err)
	}
	if k < 1 || k > MaxK {
		return nil, fmt.Errorf("k = %d: from 1 to %d copies are possible", k, MaxK)
	}
	if overlay != Pastry && overlay != Tapestry {
		return nil, fmt.Errorf("no such overlay: %s", overlay)
	}
	p := &Pool{Root: root.Public(), Nonce: nonce, K: k, Overlay: overlay, Name: name}
	p.Sig = root.Sign(domainPool, p.body())
	return p, nil
}

// ID names the pool.
func (p *Pool) ID() PoolID { return PoolID(tagged("atoll/pool/1", p.Root[:], p.Nonce[:])) }

// RootHash is what an invite says of the root key.
func RootHash(root [32]byte) [32]byte { return tagged("atoll/root/1", root[:]) }

func (p *Pool) body() []byte {
	var w wire.Writer
	w.U8(1)
	w.Fixed(p.Root[:])
	w.Fixed(p.Nonce[:])
	w.U8(uint8(p.K))
	w.U8(uint8(p.Overlay))
	w.Bytes8([]byte(p.Name))
	return w.B
}

// Append encodes the record.
func (p *Pool) Append(w *wire.Writer) {
	w.Fixed(p.body())
	w.Fixed(p.Sig[:])
}

// Encode encodes the record by itself.
func (p *Pool) Encode() []byte {
	var w wire.Writer
	p.Append(&w)
	return w.B
}

// readPool reads a record without checking its signature.
func readPool(r *wire.Reader) *Pool {
	readVersion(r)
	p := &Pool{}
	r.Into(p.Root[:])
	r.Into(p.Nonce[:])
	p.K = int(r.U8())
	p.Overlay = Overlay(r.U8())
	if p.K < 1 || p.K > MaxK || (p.Overlay != Pastry && p.Overlay != Tapestry) {
		r.Fail(wire.ErrValue)
	}
	p.Name = readLabel(r)
	r.Into(p.Sig[:])
	return p
}

func (p *Pool) verify() error {
	if !Verify(p.Root, domainPool, p.body(), p.Sig) {
		return fmt.Errorf("pool %s: signature of its record is wrong", p.ID().Short())
	}
	return nil
}

// ParsePool decodes a record and checks its signature.
func ParsePool(b []byte) (*Pool, error) {
	r := wire.NewReader(b)
	p := readPool(r)
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("pool record: %w", err)
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	return p, nil
}

func readVersion(r *wire.Reader) {
	if v := r.U8(); v != 1 {
		r.Fail(wire.ErrVersion)
	}
}

func readLabel(r *wire.Reader) string {
	s := string(r.Bytes8(MaxLabel))
	if CheckLabel(s) != nil {
		r.Fail(wire.ErrValue)
	}
	return s
}

// readTime reads Unix ms that fit an int64.
func readTime(r *wire.Reader) int64 {
	v := int64(r.U64())
	if v < 0 {
		r.Fail(wire.ErrValue)
	}
	return v
}
