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

// covered is what the signature is over.
func (c *StoreCert) covered(f wire.Codec) {
	about(f, &c.Pool, &c.GUID, &c.Owner, &c.Claim)
	f.U32(&c.Size)
	f.U8(&c.K)
	f.U64(&c.Stamp)
	f.U64(&c.Expires)
}

func (c *StoreCert) fields(f wire.Codec) {
	c.covered(f)
	f.Fixed(c.Sig[:])
	f.Check(c.Size <= MaxBlock && c.K > 0 && c.K <= MaxReplicas, wire.ErrBound)
}

// AppendTo encodes c.
func (c *StoreCert) AppendTo(w *wire.Writer) { c.fields(w.Codec()) }

// SignWith signs c with the owner's key.
func (c *StoreCert) SignWith(sign Signer) { c.Sig = sign(DomainStoreCert, bytesOf(c.covered)) }

// Verify checks the owner's signature.
func (c *StoreCert) Verify(v Verifier) bool {
	return v(c.Owner, DomainStoreCert, bytesOf(c.covered), c.Sig)
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

// own is what a receipt says by itself, the leaf of a batch.
func (c *Receipt) own(f wire.Codec) {
	about(f, &c.Pool, &c.GUID, &c.Owner, &c.Claim)
	f.U64(&c.Stamp)
	f.GUID(&c.Node)
	wire.Enum(f, &c.Role, RoleReplica, RoleTombstone)
	f.U64(&c.Synced)
}

func (c *Receipt) fields(f wire.Codec) {
	c.own(f)
	f.Fixed(c.Root[:])
	wire.List8(f, &c.Path, maxPath, 32, func(sum *[32]byte, f wire.Codec) { f.Fixed(sum[:]) })
	f.Fixed(c.Sig[:])
}

// AppendTo encodes c.
func (c *Receipt) AppendTo(w *wire.Writer) { c.fields(w.Codec()) }

func (c *Receipt) leaf() [32]byte {
	w := wire.Writer{B: make([]byte, 0, receiptSize+32)}
	w.Fixed([]byte("atoll/receipt/leaf/1"))
	c.own(w.Codec())
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

// covered is what the signature is over.
func (s *Signed) covered(f wire.Codec) {
	f.Version(recordVersion)
	f.Fixed(s.Pool[:])
	f.Fixed(s.Owner[:])
	f.Bytes8(&s.Salt, MaxSalt)
	f.U64(&s.Seq)
	f.U64(&s.Expires)
	n := uint32(len(s.Value))
	if s.Removed {
		n = removedLen
	}
	f.U32(&n)
	if f.Read() {
		s.Removed = n == removedLen
	}
	if !s.Removed {
		f.Bytes(&s.Value, int(n), MaxValue)
	}
}

func (s *Signed) fields(f wire.Codec) {
	s.covered(f)
	f.Fixed(s.Sig[:])
	f.Check(s.Seq != 0, wire.ErrValue) // 0 stands for "absent" in cas
}

// AppendTo encodes s.
func (s *Signed) AppendTo(w *wire.Writer) { s.fields(w.Codec()) }

// SignWith signs s with the owner's key.
func (s *Signed) SignWith(sign Signer) { s.Sig = sign(DomainSigned, bytesOf(s.covered)) }

// Verify checks bounds and the owner's signature.
func (s *Signed) Verify(v Verifier) bool {
	if len(s.Salt) > MaxSalt || len(s.Value) > MaxValue || s.Seq == 0 || s.Removed && len(s.Value) > 0 {
		return false
	}
	return v(s.Owner, DomainSigned, bytesOf(s.covered), s.Sig)
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

// covered is what the signature is over.
func (m *Remove) covered(f wire.Codec) {
	about(f, &m.Pool, &m.GUID, &m.Owner, &m.Claim)
	f.U64(&m.Stamp)
}

func (m *Remove) fields(f wire.Codec) {
	m.covered(f)
	f.Fixed(m.Sig[:])
}

// AppendTo encodes m.
func (m *Remove) AppendTo(w *wire.Writer) { m.fields(w.Codec()) }

// SignWith signs m with the owner's key.
func (m *Remove) SignWith(sign Signer) { m.Sig = sign(DomainRemove, bytesOf(m.covered)) }

// Verify checks the owner's signature.
func (m *Remove) Verify(v Verifier) bool {
	return v(m.Owner, DomainRemove, bytesOf(m.covered), m.Sig)
}

// about are the fields with which a record names what it is about.
func about(f wire.Codec, pool *[32]byte, g *id.GUID, owner *[32]byte, claim *[16]byte) {
	f.Version(recordVersion)
	f.Fixed(pool[:])
	f.GUID(g)
	f.Fixed(owner[:])
	f.Fixed(claim[:])
}

func bytesOf(fields func(wire.Codec)) []byte {
	w := wire.Writer{B: make([]byte, 0, storeCertSize)}
	fields(w.Codec())
	return w.B
}

func readVersion(r *wire.Reader) { r.Codec().Version(recordVersion) }

// Encode returns the canonical bytes of a record.
func Encode(c interface{ AppendTo(*wire.Writer) }) []byte {
	var w wire.Writer
	c.AppendTo(&w)
	return w.B
}

func decode(what string, b []byte, fields func(wire.Codec)) error {
	r := wire.NewReader(b)
	fields(r.Codec())
	if err := r.Close(); err != nil {
		return fmt.Errorf("dht: %s: %w", what, err)
	}
	return nil
}

// DecodeStoreCert is the inverse of Encode.
func DecodeStoreCert(b []byte) (c StoreCert, err error) {
	err = decode("store certificate", b, c.fields)
	return c, err
}

// DecodeReceipt is the inverse of Encode.
func DecodeReceipt(b []byte) (c Receipt, err error) {
	err = decode("receipt", b, c.fields)
	return c, err
}

// DecodeSigned is the inverse of Encode; the result aliases b.
func DecodeSigned(b []byte) (s Signed, err error) {
	err = decode("signed block", b, s.fields)
	return s, err
}

// DecodeRemove is the inverse of Encode.
func DecodeRemove(b []byte) (m Remove, err error) {
	err = decode("remove", b, m.fields)
	return m, err
}
