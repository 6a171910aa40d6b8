package roster

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/wire"
)

// Errors of Add and Parse, beside those of package ident.
var (
	ErrFull      = errors.New("roster is full")
	ErrBadEntry  = errors.New("roster entry is not valid")
	ErrUnknown   = errors.New("no such node in the roster")
	ErrDisavowed = fmt.Errorf("%w: the admin who signed it", ident.ErrRevoked)
)

// Bounds, ours: a frame must hold any entry, a small node the whole roster.
const (
	MaxEntry = 60_000 // bytes of one entry
	MaxKeep  = 3_600  // entries of an admin that can stand after its revocation
)

// Kind is the first byte of an entry.
type Kind uint8

// Kinds of entries.
const (
	KindCert Kind = iota + 1
	KindReady
	KindLeft
	KindRevoked
)

// Tag names an entry: the first 16 bytes of its BLAKE3 hash.
type Tag [16]byte

// TagOf is the tag of an encoded entry.
func TagOf(entry []byte) (t Tag) {
	sum := blake3.Sum256(entry)
	copy(t[:], sum[:])
	return t
}

// Entry is one decoded entry. Exactly one of Chain, State and Revoked is set.
type Entry struct {
	Chain   ident.Chain
	State   *State
	Revoked *Revoked
}

// State is a node's word about itself, ready or left.
//
//	kind u8 · version u8 = 1 · pool 32 · seq u32 ·
//	ready: handle · signature 64          left: node key 32 · epoch u32 · signature 64
type State struct {
	Pool   ident.PoolID
	Node   [32]byte
	Epoch  uint32
	Seq    uint32     // orders what a node says within one epoch
	Handle *id.Handle // nil: left
	Sig    [64]byte
}

// Revoked is an admin's word against a node.
//
//	kind u8 · version u8 = 1 · pool 32 · node key 32 · serial 16 · at u64 · reason u8+≤64 ·
//	nonce 16 · keep u16, each 16, ascending · by 32 · chain? bool, chain of by · signature 64
type Revoked struct {
	Pool   ident.PoolID
	Node   [32]byte
	Serial ident.Serial // the certificate that was current; for people
	At     int64        // Unix ms by the revoker's clock; for people
	Reason string       // a label
	Nonce  [16]byte
	Keep   []Tag // of an admin's entries, those that stand; see keepTag
	By     [32]byte
	Chain  ident.Chain // of By; nil: By is the root key
	Sig    [64]byte
}

// Parse decodes an entry. Signatures are not checked: Roster.Add does.
func Parse(b []byte) (*Entry, error) {
	if len(b) > MaxEntry {
		return nil, fmt.Errorf("%w: %w", ErrBadEntry, wire.ErrBound)
	}
	r := wire.NewReader(b)
	kind := Kind(r.U8())
	if r.U8() != 1 {
		r.Fail(wire.ErrVersion)
	}
	e := &Entry{}
	switch kind {
	case KindCert:
		e.Chain = ident.ReadChain(r)
	case KindReady, KindLeft:
		e.State = readState(r, kind)
	case KindRevoked:
		e.Revoked = readRevoked(r)
	default:
		r.Fail(wire.ErrVersion)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadEntry, err)
	}
	return e, nil
}

// Encode is the inverse of Parse.
func (e *Entry) Encode() []byte {
	var w wire.Writer
	switch {
	case e.Chain != nil:
		w.U8(uint8(KindCert))
		w.U8(1)
		e.Chain.Append(&w)
	case e.State != nil:
		w.Fixed(e.State.body())
		w.Fixed(e.State.Sig[:])
	default:
		w.Fixed(e.Revoked.body())
		w.Fixed(e.Revoked.Sig[:])
	}
	return w.B
}

// Node is the key of the node that the entry is about.
func (e *Entry) Node() [32]byte {
	switch {
	case e.Chain != nil:
		return e.Chain.Leaf().Node
	case e.State != nil:
		return e.State.Node
	}
	return e.Revoked.Node
}

// issuer is the key of the admin who signed a certificate or revocation; the
// root key's entries and the nodes' own have none.
func (e *Entry) issuer() (key [32]byte, ok bool) {
	switch {
	case len(e.Chain) == 2:
		return e.Chain.Leaf().Issuer, true
	case e.Revoked != nil && e.Revoked.Chain != nil:
		return e.Revoked.By, true
	}
	return key, false
}

func (s *State) kind() Kind {
	if s.Handle != nil {
		return KindReady
	}
	return KindLeft
}

func (s *State) body() []byte {
	w := wire.Writer{B: make([]byte, 0, 256)}
	w.U8(uint8(s.kind()))
	w.U8(1)
	w.Fixed(s.Pool[:])
	w.U32(s.Seq)
	if s.Handle != nil {
		w.Handle(s.Handle)
		return w.B
	}
	w.Fixed(s.Node[:])
	w.U32(s.Epoch)
	return w.B
}

func readState(r *wire.Reader, kind Kind) *State {
	s := &State{}
	r.Into(s.Pool[:])
	s.Seq = r.U32()
	if kind == KindReady {
		s.Handle = r.Handle()
		s.Node, s.Epoch = s.Handle.Key, s.Handle.Epoch
	} else {
		r.Into(s.Node[:])
		s.Epoch = r.U32()
	}
	r.Into(s.Sig[:])
	return s
}

func (s *State) domain() string {
	if s.Handle != nil {
		return ident.DomainReady
	}
	return ident.DomainLeft
}

// after reports whether s is the newer word. Two words of one node with the same
// epoch and number: left wins, then the larger signature. So there is one
// newest, whoever compares.
func (s *State) after(t *State) bool {
	switch {
	case s.Epoch != t.Epoch:
		return s.Epoch > t.Epoch
	case s.Seq != t.Seq:
		return s.Seq > t.Seq
	case s.kind() != t.kind():
		return s.kind() > t.kind()
	}
	return bytes.Compare(s.Sig[:], t.Sig[:]) > 0
}

func (v *Revoked) body() []byte {
	w := wire.Writer{B: make([]byte, 0, 768+16*len(v.Keep))}
	w.U8(uint8(KindRevoked))
	w.U8(1)
	w.Fixed(v.Pool[:])
	w.Fixed(v.Node[:])
	w.Fixed(v.Serial[:])
	w.U64(uint64(v.At))
	w.Bytes8([]byte(v.Reason))
	w.Fixed(v.Nonce[:])
	w.Count(len(v.Keep))
	for _, t := range v.Keep {
		w.Fixed(t[:])
	}
	w.Fixed(v.By[:])
	w.Bool(v.Chain != nil)
	if v.Chain != nil {
		v.Chain.Append(&w)
	}
	return w.B
}

func readRevoked(r *wire.Reader) *Revoked {
	v := &Revoked{}
	r.Into(v.Pool[:])
	r.Into(v.Node[:])
	r.Into(v.Serial[:])
	v.At = int64(r.U64())
	v.Reason = string(r.Bytes8(ident.MaxLabel))
	if v.At < 0 || ident.CheckLabel(v.Reason) != nil {
		r.Fail(wire.ErrValue)
	}
	r.Into(v.Nonce[:])
	v.Keep = make([]Tag, r.Count(MaxKeep, len(Tag{})))
	for i := range v.Keep {
		r.Into(v.Keep[i][:])
		if i > 0 && bytes.Compare(v.Keep[i-1][:], v.Keep[i][:]) >= 0 {
			r.Fail(wire.ErrValue)
		}
	}
	r.Into(v.By[:])
	if r.Bool() {
		v.Chain = ident.ReadChain(r)
	}
	r.Into(v.Sig[:])
	return v
}

// keepTag is what stands in Keep for an entry.
func (v *Revoked) keepTag(entry []byte) (t Tag) {
	h := blake3.New()
	_, _ = h.WriteString("atoll/keep/1") // a hash takes every byte
	_, _ = h.Write(v.Nonce[:])
	_, _ = h.Write(entry)
	sum := h.Sum(nil)
	copy(t[:], sum)
	return t
}

// verify checks the entry's signatures and its place in the pool.
func (e *Entry) verify(p *ident.Pool, pool ident.PoolID) error {
	switch {
	case e.Chain != nil:
		return e.Chain.VerifySignatures(p)
	case e.State != nil:
		s := e.State
		if s.Pool != pool {
			return fmt.Errorf("%w: pool %s", ident.ErrWrongPool, s.Pool.Short())
		}
		if s.Handle != nil {
			if err := ident.CheckHandle(s.Handle); err != nil {
				return fmt.Errorf("%w: %w", ErrBadEntry, err)
			}
		}
		if !ident.Verify(s.Node, s.domain(), s.body(), s.Sig) {
			return fmt.Errorf("%w: signature", ErrBadEntry)
		}
		return nil
	}
	v := e.Revoked
	if v.Pool != pool {
		return fmt.Errorf("%w: pool %s", ident.ErrWrongPool, v.Pool.Short())
	}
	if v.Chain == nil {
		if v.By != p.Root {
			return fmt.Errorf("%w: not signed by the root key", ErrBadEntry)
		}
	} else {
		if err := v.Chain.VerifySignatures(p); err != nil {
			return err
		}
		if leaf := v.Chain.Leaf(); len(v.Chain) != 1 || leaf.Role != ident.Admin || leaf.Node != v.By {
			return fmt.Errorf("%w: not signed by an admin", ErrBadEntry)
		}
		if len(v.Keep) != 0 {
			return fmt.Errorf("%w: only the root key revokes admins", ErrBadEntry)
		}
	}
	if !ident.Verify(v.By, ident.DomainRevoked, v.body(), v.Sig) {
		return fmt.Errorf("%w: signature", ErrBadEntry)
	}
	return nil
}

// CertEntry is the entry that makes a chain known.
func CertEntry(c ident.Chain) []byte { return (&Entry{Chain: c}).Encode() }

// ReadyEntry is the word of the node that holds key that it has joined, under
// handle h. seq is raised when its addresses change within one epoch.
func ReadyEntry(pool ident.PoolID, key ident.Key, h *id.Handle, seq uint32) []byte {
	s := &State{Pool: pool, Node: key.Public(), Epoch: h.Epoch, Seq: seq, Handle: h}
	s.Sig = key.Sign(s.domain(), s.body())
	return (&Entry{State: s}).Encode()
}

// LeftEntry is the word of the node that holds key that it has gone for good.
func LeftEntry(pool ident.PoolID, key ident.Key, epoch, seq uint32) []byte {
	s := &State{Pool: pool, Node: key.Public(), Epoch: epoch, Seq: seq}
	s.Sig = key.Sign(s.domain(), s.body())
	return (&Entry{State: s}).Encode()
}
