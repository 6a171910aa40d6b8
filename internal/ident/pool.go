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

// covered is what the signature is over.
func (p *Pool) covered(c wire.Codec) {
	c.Version(1)
	c.Fixed(p.Root[:])
	c.Fixed(p.Nonce[:])
	k := uint8(p.K)
	wire.Enum(c, &k, 1, MaxK)
	if c.Read() {
		p.K = int(k)
	}
	wire.Enum(c, &p.Overlay, Pastry, Tapestry)
	label(c, &p.Name)
}

func (p *Pool) fields(c wire.Codec) {
	p.covered(c)
	c.Fixed(p.Sig[:])
}

func (p *Pool) body() []byte { return bytesOf(p.covered) }

// Append encodes the record.
func (p *Pool) Append(w *wire.Writer) { p.fields(w.Codec()) }

// Encode encodes the record by itself.
func (p *Pool) Encode() []byte { return bytesOf(p.fields) }

// readPool reads a record without checking its signature.
func readPool(r *wire.Reader) *Pool {
	p := &Pool{}
	p.fields(r.Codec())
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
	p := &Pool{}
	if _, err := parse(b, "pool record", p, p.fields); err != nil {
		return nil, err
	}
	if err := p.verify(); err != nil {
		return nil, err
	}
	return p, nil
}

func readVersion(r *wire.Reader) { r.Codec().Version(1) }

// bytesOf encodes fields by themselves.
func bytesOf(fields func(wire.Codec)) []byte {
	w := wire.Writer{B: make([]byte, 0, 512)}
	fields(w.Codec())
	return w.B
}

// parse reads the fields of v, and nothing else, from b. It returns v, or nil
// and an error.
func parse[T any](b []byte, what string, v *T, fields func(wire.Codec)) (*T, error) {
	r := wire.NewReader(b)
	fields(r.Codec())
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return v, nil
}

// label is a u8 length and text fit to be shown.
func label(c wire.Codec, s *string) {
	c.Text8(s, MaxLabel)
	c.Check(CheckLabel(*s) == nil, wire.ErrValue)
}

// unixMS is a u64 that fits an int64.
func unixMS(c wire.Codec, t *int64) {
	v := uint64(*t)
	c.U64(&v)
	c.Check(int64(v) >= 0, wire.ErrValue)
	if c.Read() {
		*t = int64(v)
	}
}

func readTime(r *wire.Reader) (t int64) {
	unixMS(r.Codec(), &t)
	return t
}
