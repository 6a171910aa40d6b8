package dht

import (
	"bytes"
	"fmt"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Domain tags under which records are signed.
const (
	DomainStoreCert = "atoll/storecert/1"
	DomainReceipt   = "atoll/receipt/1"
	DomainSigned    = "atoll/signedblock/1"
	DomainRemove    = "atoll/remove/1"
)

// Signer signs a message under a domain tag with a key it keeps.
type Signer func(domain string, msg []byte) [64]byte

// Verifier checks such a signature.
type Verifier func(key [32]byte, domain string, msg []byte, sig [64]byte) bool

// recordVersion opens every encoded record; another is refused.
const recordVersion = 1

// StoreCert is an owner's signed wish that a content block be kept.
//
//	version u8 | pool 32 | GUID 32 | owner 32 | claim 16 | size u32 | k u8 |
//	stamp u64 | expires u64 (0 = never) | sig 64
type StoreCert struct {
	Pool    [32]byte
	GUID    id.GUID
	Owner   [32]byte
	Claim   [16]byte
	Size    uint32
	K       uint8
	Stamp   uint64 // the owner's clock, Unix ms
	Expires uint64
	Sig     [64]byte
}

const storeCertSize = 1 + 32 + 32 + 32 + 16 + 4 + 1 + 8 + 8 + 64

// NewStoreCert fills in a certificate without expiry, yet to be signed.
func NewStoreCert(pool [32]byte, g id.GUID, owner [32]byte, claim [16]byte, size, k int, stamp uint64) StoreCert {
	return StoreCert{
		Pool: pool, GUID: g, Owner: owner, Claim: claim,
		Size: uint32(size), K: uint8(k), Stamp: stamp,
	}
}

func (c *StoreCert) appendSigned(w *wire.Writer) {
	w.U8(recordVersion)
	w.Fixed(c.Pool[:])
	w.GUID(c.GUID)
	w.Fixed(c.Owner[:])
	w.Fixed(c.Claim[:])
	w.U32(c.Size)
	w.U8(c.K)
	w.U64(c.Stamp)
	w.U64(c.Expires)
}

// AppendTo encodes c.
func (c *StoreCert) AppendTo(w *wire.Writer) {
	c.appendSigned(w)
	w.Fixed(c.Sig[:])
}

func (c *StoreCert) read(r *wire.Reader) {
	readVersion(r)
	r.Into(c.Pool[:])
	c.GUID = r.GUID()
	r.Into(c.Owner[:])
	r.Into(c.Claim[:])
	c.Size = r.U32()
	c.K = r.U8()
	c.Stamp = r.U64()
	c.Expires = r.U64()
	r.Into(c.Sig[:])
	if c.Size > MaxBlock || c.K == 0 || c.K > MaxReplicas {
		r.Fail(wire.ErrBound)
	}
}

// SignWith signs c with the owner's key.
func (c *StoreCert) SignWith(sign Signer) {
	var w wire.Writer
	c.appendSigned(&w)
	c.Sig = sign(DomainStoreCert, w.B)
}

// Verify checks the owner's signature.
func (c *StoreCert) Verify(v Verifier) bool {
	w := wire.Writer{B: make([]byte, 0, storeCertSize)}
	c.appendSigned(&w)
	return v(c.Owner, DomainStoreCert, w.B, c.Sig)
}

// Role says in which capacity a node holds a copy.
type Role uint8

const (
	RoleReplica   Role = 1 // member of the set
	RoleDiverted  Role = 2 // in place of a set member without space
	RoleStandIn   Role = 3 // in place of a silent set member
	RoleTombstone Role = 4 // in a Receipt: holds the Remove, not a copy
)

// Receipt is a node's signed word that a record is on its disk, synced.
//
//	version u8 | pool 32 | GUID 32 | owner 32 | claim 16 | stamp u64 |
//	node 32 | role u8 | synced u64 | root 32 | path count u8, ≤ 6 × 32 | sig 64
//
// The signature is over root; path leads from the receipt's leaf hash to it.
// A receipt signed alone has an empty path. For a signed block, claim is the
// first half of the value's hash and stamp its seq.
type Receipt struct {
	Pool   [32]byte
	GUID   id.GUID
	Owner  [32]byte
	Claim  [16]byte
	Stamp  uint64
	Node   id.GUID
	Role   Role
	Synced uint64 // Unix ms, by the node's clock
	Root   [32]byte
	Path   [][32]byte
	Sig    [64]byte
}

const (
	maxPath     = 6
	receiptSize = 1 + 32 + 32 + 32 + 16 + 8 + 32 + 1 + 8 + 32 + 1 + 64
)

func (c *Receipt) appendLeaf(w *wire.Writer) {
	w.U8(recordVersion)
	w.Fixed(c.Pool[:])
	w.GUID(c.GUID)
	w.Fixed(c.Owner[:])
	w.Fixed(c.Claim[:])
	w.U64(c.Stamp)
	w.GUID(c.Node)
	w.U8(uint8(c.Role))
	w.U64(c.Synced)
}

// AppendTo encodes c.
func (c *Receipt) AppendTo(w *wire.Writer) {
	c.appendLeaf(w)
	w.Fixed(c.Root[:])
	w.U8(uint8(len(c.Path)))
	for i := range c.Path {
		w.Fixed(c.Path[i][:])
	}
	w.Fixed(c.Sig[:])
}

func (c *Receipt) read(r *wire.Reader) {
	readVersion(r)
	r.Into(c.Pool[:])
	c.GUID = r.GUID()
	r.Into(c.Owner[:])
	r.Into(c.Claim[:])
	c.Stamp = r.U64()
	c.Node = r.GUID()
	c.Role = Role(r.U8())
	if c.Role < RoleReplica || c.Role > RoleTombstone {
		r.Fail(wire.ErrValue)
	}
	c.Synced = r.U64()
	r.Into(c.Root[:])
	n := int(r.U8())
	if n > maxPath {
		r.Fail(wire.ErrBound)
		return
	}
	if n > 0 {
		c.Path = make([][32]byte, n)
		for i := range c.Path {
			r.Into(c.Path[i][:])
		}
	}
	r.Into(c.Sig[:])
}

func (c *Receipt) leaf() [32]byte {
	w := wire.Writer{B: make([]byte, 0, receiptSize+32)}
	w.Fixed([]byte("atoll/receipt/leaf/1"))
	c.appendLeaf(&w)
	return blake3.Sum256(w.B)
}

// SignWith signs c alone with the node's key.
func (c *Receipt) SignWith(sign Signer) {
	c.Path = nil
	c.Root = c.leaf()
	c.Sig = sign(DomainReceipt, c.Root[:])
}

// Verify checks path and signature against the node's key.
func (c *Receipt) Verify(key [32]byte, v Verifier) bool {
	h := c.leaf()
	for _, s := range c.Path {
		a, b := h, s
		if bytes.Compare(b[:], a[:]) < 0 {
			a, b = b, a
		}
		w := wire.Writer{B: make([]byte, 0, 96)}
		w.Fixed([]byte("atoll/receipt/node/1"))
		w.Fixed(a[:])
		w.Fixed(b[:])
		h = blake3.Sum256(w.B)
	}
	return h == c.Root && v(key, DomainReceipt, c.Root[:], c.Sig)
}

// Signed is one version of a signed block.
//
//	version u8 | pool 32 | owner 32 | saltLen u8 | salt | seq u64 |
//	expires u64 | len u32 (2³²−1: removed, no value) | value | sig 64
type Signed struct {
	Pool    [32]byte
	Owner   [32]byte
	Salt    []byte
	Seq     uint64
	Expires uint64
	Removed bool
	Value   []byte
	Sig     [64]byte
}

const minSigned = 1 + 32 + 32 + 1 + 8 + 8 + 4 + 64

// GUID names the block of which s is a version.
func (s *Signed) GUID() id.GUID { return SignedGUID(s.Owner, s.Salt) }

// ValueHash orders versions of one seq; a removal hashes a tag of its own.
func (s *Signed) ValueHash() [32]byte {
	if s.Removed {
		return blake3.Sum256([]byte("atoll/signed/removed/1"))
	}
	return blake3.Sum256(s.Value)
}

func (s *Signed) appendSigned(w *wire.Writer) {
	w.U8(recordVersion)
	w.Fixed(s.Pool[:])
	w.Fixed(s.Owner[:])
	w.Bytes8(s.Salt)
	w.U64(s.Seq)
	w.U64(s.Expires)
	if s.Removed {
		w.U32(removedLen)
	} else {
		w.Bytes32(s.Value)
	}
}

// AppendTo encodes s.
func (s *Signed) AppendTo(w *wire.Writer) {
	s.appendSigned(w)
	w.Fixed(s.Sig[:])
}

func (s *Signed) read(r *wire.Reader) {
	readVersion(r)
	r.Into(s.Pool[:])
	r.Into(s.Owner[:])
	s.Salt = r.Bytes8(MaxSalt)
	s.Seq = r.U64()
	s.Expires = r.U64()
	switch n := r.U32(); {
	case n == removedLen:
		s.Removed = true
	case n > MaxValue:
		r.Fail(wire.ErrBound)
	default:
		s.Value = r.Fixed(int(n))
	}
	r.Into(s.Sig[:])
	if s.Seq == 0 {
		r.Fail(wire.ErrValue) // 0 stands for "absent" in cas
	}
}

// SignWith signs s with the owner's key.
func (s *Signed) SignWith(sign Signer) {
	var w wire.Writer
	s.appendSigned(&w)
	s.Sig = sign(DomainSigned, w.B)
}

// Verify checks bounds and the owner's signature.
func (s *Signed) Verify(v Verifier) bool {
	if len(s.Salt) > MaxSalt || len(s.Value) > MaxValue || s.Seq == 0 || s.Removed && len(s.Value) > 0 {
		return false
	}
	var w wire.Writer
	s.appendSigned(&w)
	return v(s.Owner, DomainSigned, w.B, s.Sig)
}

func (s *Signed) size() int { return minSigned + len(s.Salt) + len(s.Value) }

// Remove ends the claims of (GUID, owner, claim) with a stamp no later than
// its own. Kept, it is the tombstone.
//
//	version u8 | pool 32 | GUID 32 | owner 32 | claim 16 | stamp u64 | sig 64
type Remove struct {
	Pool  [32]byte
	GUID  id.GUID
	Owner [32]byte
	Claim [16]byte
	Stamp uint64
	Sig   [64]byte
}

const removeSize = 1 + 32 + 32 + 32 + 16 + 8 + 64

func (m *Remove) appendSigned(w *wire.Writer) {
	w.U8(recordVersion)
	w.Fixed(m.Pool[:])
	w.GUID(m.GUID)
	w.Fixed(m.Owner[:])
	w.Fixed(m.Claim[:])
	w.U64(m.Stamp)
}

// AppendTo encodes m.
func (m *Remove) AppendTo(w *wire.Writer) {
	m.appendSigned(w)
	w.Fixed(m.Sig[:])
}

func (m *Remove) read(r *wire.Reader) {
	readVersion(r)
	r.Into(m.Pool[:])
	m.GUID = r.GUID()
	r.Into(m.Owner[:])
	r.Into(m.Claim[:])
	m.Stamp = r.U64()
	r.Into(m.Sig[:])
}

// SignWith signs m with the owner's key.
func (m *Remove) SignWith(sign Signer) {
	var w wire.Writer
	m.appendSigned(&w)
	m.Sig = sign(DomainRemove, w.B)
}

// Verify checks the owner's signature.
func (m *Remove) Verify(v Verifier) bool {
	var w wire.Writer
	m.appendSigned(&w)
	return v(m.Owner, DomainRemove, w.B, m.Sig)
}

func readVersion(r *wire.Reader) {
	if v := r.U8(); v != recordVersion {
		r.Fail(wire.ErrVersion)
	}
}

type record interface {
	AppendTo(*wire.Writer)
	read(*wire.Reader)
}

// Encode returns the canonical bytes of a record.
func Encode(c interface{ AppendTo(*wire.Writer) }) []byte {
	var w wire.Writer
	c.AppendTo(&w)
	return w.B
}

func decodeInto(c record, b []byte, what string) error {
	r := wire.NewReader(b)
	c.read(r)
	if err := r.Close(); err != nil {
		return fmt.Errorf("dht: %s: %w", what, err)
	}
	return nil
}

// DecodeStoreCert is the inverse of Encode.
func DecodeStoreCert(b []byte) (c StoreCert, err error) {
	err = decodeInto(&c, b, "store certificate")
	return c, err
}

// DecodeReceipt is the inverse of Encode.
func DecodeReceipt(b []byte) (c Receipt, err error) {
	err = decodeInto(&c, b, "receipt")
	return c, err
}

// DecodeSigned is the inverse of Encode; the result aliases b.
func DecodeSigned(b []byte) (c Signed, err error) {
	err = decodeInto(&c, b, "signed block")
	return c, err
}

// DecodeRemove is the inverse of Encode.
func DecodeRemove(b []byte) (c Remove, err error) {
	err = decodeInto(&c, b, "remove")
	return c, err
}
