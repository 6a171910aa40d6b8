package ident

import (
	"crypto/subtle"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Bounds of questions and answers before membership, in bytes; those of
// transport.Ask are no smaller.
const (
	MaxQuestion = 4 << 10
	MaxAnswer   = 64 << 10
	maxSeeds    = 48 << 10 // roster entries in an answer
	maxHandles  = 16
	maxText     = 255
)

// Question is what a node that is no member yet, or no longer, may ask a member,
// the body of a transport.Ask: Identify, *JoinRequest, *RenewRequest or *Standing.
//
//	kind u8 (1, 2, 3, 4) · body
type Question interface {
	kind() uint8
	fields(c wire.Codec) // after kind and version
}

const (
	kindIdentify uint8 = iota + 1
	kindJoin
	kindRenew
	kindStanding
)

// Identify asks a node who it is, before anything is said about oneself. The
// answer is an Identity.
type Identify struct{}

func (Identify) kind() uint8       { return kindIdentify }
func (Identify) fields(wire.Codec) {}

// JoinRequest asks the issuer of an invite, through any member, for a
// certificate. The answer is a JoinAnswer.
//
//	version u8 = 1 · token id 16 · issuer GUID 32 · node key 32 · owner key 32 ·
//	domain u8+≤64 · name u8+≤64 · wall u64 · proof 32
//
// proof is keyed BLAKE3 over all before it, under a key derived from the token.
type JoinRequest struct {
	TokenID [16]byte
	Issuer  id.GUID
	Node    [32]byte
	Owner   [32]byte
	Domain  string
	Name    string
	Wall    int64 // the asking node's clock, Unix ms
	Proof   [32]byte
}

// NewJoinRequest asks for what v promises, for the node and owner of s (whose
// Role and Quota are the invite's to say).
func NewJoinRequest(v *Invite, s Subject, wall int64) (*JoinRequest, error) {
	if err := CheckLabel(s.Domain); err != nil {
		return nil, fmt.Errorf("domain: %w", err)
	}
	if err := CheckLabel(s.Name); err != nil {
		return nil, fmt.Errorf("name: %w", err)
	}
	key := tokenKey(v.Token)
	q := &JoinRequest{
		TokenID: tokenID(key), Issuer: v.Issuer, Node: s.Node, Owner: s.Owner,
		Domain: s.Domain, Name: s.Name, Wall: wall,
	}
	q.Proof = q.prove(key)
	return q, nil
}

// proved is what the proof is over, beside kind and version.
func (q *JoinRequest) proved(c wire.Codec) {
	c.Fixed(q.TokenID[:])
	c.GUID(&q.Issuer)
	c.Fixed(q.Node[:])
	c.Fixed(q.Owner[:])
	label(c, &q.Domain)
	label(c, &q.Name)
	unixMS(c, &q.Wall)
}

func (*JoinRequest) kind() uint8 { return kindJoin }

func (q *JoinRequest) fields(c wire.Codec) {
	q.proved(c)
	c.Fixed(q.Proof[:])
}

func (q *JoinRequest) prove(key [32]byte) (proof [32]byte) {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("ident: 32 bytes are no key: " + err.Error())
	}
	_, _ = h.Write([]byte{kindJoin, 1})
	_, _ = h.Write(bytesOf(q.proved))
	h.Sum(proof[:0])
	return proof
}

func (q *JoinRequest) provedBy(key [32]byte) bool {
	p := q.prove(key)
	return subtle.ConstantTimeCompare(p[:], q.Proof[:]) == 1
}

// RenewRequest asks any admin for a new certificate in place of an ageing one.
// It is to be answered only to the node whose key the transport has proved. The
// answer is a JoinAnswer.
//
//	version u8 = 1 · chain
type RenewRequest struct{ Chain Chain }

func (*RenewRequest) kind() uint8           { return kindRenew }
func (q *RenewRequest) fields(c wire.Codec) { q.Chain.fields(c) }

// Standing asks a member that refused the asking node's certificate for the proof
// that it was revoked: the word of one peer must not stop a node. The answer is
// Grounds.
//
//	version u8 = 1 · chain
type Standing struct{ Chain Chain }

func (*Standing) kind() uint8           { return kindStanding }
func (q *Standing) fields(c wire.Codec) { q.Chain.fields(c) }

// EncodeQuestion is the body of a transport.Ask.
func EncodeQuestion(q Question) []byte {
	return append([]byte{q.kind(), 1}, bytesOf(q.fields)...)
}

// ParseQuestion decodes what came by transport.Ask.
func ParseQuestion(b []byte) (Question, error) {
	if len(b) > MaxQuestion {
		return nil, fmt.Errorf("question: %w", wire.ErrBound)
	}
	r := wire.NewReader(b)
	kind := r.U8()
	readVersion(r)
	var q Question = Identify{}
	switch kind {
	case kindIdentify:
	case kindJoin:
		q = &JoinRequest{}
	case kindRenew:
		q = &RenewRequest{}
	case kindStanding:
		q = &Standing{}
	default:
		r.Fail(wire.ErrVersion)
	}
	q.fields(r.Codec())
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("question: %w", err)
	}
	return q, nil
}

// Grounds answers Standing: the roster entry that bars the chain, signed by who
// revoked it and checked by package roster; or else the newest word of the node
// itself, which bars its earlier boots. Empty: nothing is held against it.
//
//	version u8 = 1 · entry u16+
type Grounds struct{ Entry []byte }

func (g *Grounds) fields(c wire.Codec) {
	c.Version(1)
	c.Bytes16(&g.Entry, MaxAnswer)
}

// Encode is the answer's body.
func (g *Grounds) Encode() []byte { return bytesOf(g.fields) }

// ParseGrounds reads the answer to Standing.
func ParseGrounds(b []byte) (*Grounds, error) {
	g := &Grounds{}
	return parse(b, "answer", g, g.fields)
}

// Identity answers Identify.
//
//	version u8 = 1 · wall u64 · pool record · chain
type Identity struct {
	Wall  int64
	Pool  *Pool
	Chain Chain
}

func (a *Identity) fields(c wire.Codec) {
	c.Version(1)
	unixMS(c, &a.Wall)
	if a.Pool == nil {
		a.Pool = new(Pool)
	}
	a.Pool.fields(c)
	a.Chain.fields(c)
}

// Encode is the answer's body.
func (a *Identity) Encode() []byte { return bytesOf(a.fields) }

// ParseIdentity reads the answer to Identify. Nothing is checked: see the method of
// Invite.
func ParseIdentity(b []byte) (*Identity, error) {
	a := &Identity{}
	return parse(b, "answer", a, a.fields)
}

// ParseIdentity reads the answer to Identify and checks it: that the node is in
// the pool invited to, that it is a member, and holds the key which the
// transport saw proved. A wrong clock on either side shows here first, as
// ErrClock.
func (v *Invite) ParseIdentity(b []byte, proved [32]byte, now int64) (*Identity, error) {
	a, err := ParseIdentity(b)
	if err != nil {
		return nil, err
	}
	if err := a.Pool.verify(); err != nil {
		return nil, err
	}
	if err := v.CheckPool(a.Pool); err != nil {
		return nil, err
	}
	if err := CompareClocks(now, a.Wall); err != nil {
		return nil, err
	}
	if err := a.Chain.Verify(a.Pool, now); err != nil {
		return nil, err
	}
	if a.Chain.Leaf().Node != proved {
		return nil, fmt.Errorf("%w: it showed the certificate of another node", ErrNotMember)
	}
	return a, nil
}

// JoinAnswer answers JoinRequest and RenewRequest: a certificate and what is
// needed to start, or a refusal.
//
//	version u8 = 1 · ok bool · wall u64
//	ok:     pool record · chain · entries u16, each u16+ · handles u16 (≤ 16), each a handle
//	not ok: code u8+≤32 · text u8+≤255
type JoinAnswer struct {
	Refusal *Refusal // set: nothing else is but Wall
	Wall    int64    // the answering node's clock, Unix ms
	Pool    *Pool
	Chain   Chain        // of the asking node
	Seeds   [][]byte     // roster entries
	Handles []*id.Handle // members to bootstrap from
}

// Refuse turns err into an answer.
func Refuse(err error, wall int64) *JoinAnswer {
	text := err.Error()
	for len(text) > maxText {
		_, n := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-n]
	}
	return &JoinAnswer{Refusal: &Refusal{Code: Code(err), Text: text}, Wall: wall}
}

// Encode is the answer's body. Seeds and handles that would pass the bounds are
// left out, the last ones first.
func (a *JoinAnswer) Encode() []byte {
	var w wire.Writer
	w.U8(1)
	w.Bool(a.Refusal == nil)
	w.U64(uint64(a.Wall))
	if f := a.Refusal; f != nil {
		w.Bytes8([]byte(f.Code))
		w.Bytes8([]byte(f.Text))
		return w.B
	}
	a.Pool.Append(&w)
	a.Chain.Append(&w)
	n, size := 0, 0
	for _, s := range a.Seeds {
		if size += 2 + len(s); size > maxSeeds {
			break
		}
		n++
	}
	w.Count(n)
	for _, s := range a.Seeds[:n] {
		w.Bytes16(s)
	}
	n = min(len(a.Handles), maxHandles)
	w.Count(n)
	for _, h := range a.Handles[:n] {
		w.Handle(h)
	}
	return w.B
}

func readAnswer(b []byte) (*JoinAnswer, error) {
	if len(b) > MaxAnswer {
		return nil, fmt.Errorf("answer: %w", wire.ErrBound)
	}
	r := wire.NewReader(b)
	readVersion(r)
	a := &JoinAnswer{}
	ok := r.Bool()
	a.Wall = readTime(r)
	if !ok {
		a.Refusal = &Refusal{Code: string(r.Bytes8(32)), Text: string(r.Bytes8(maxText))}
	} else {
		a.Pool = readPool(r)
		a.Chain = ReadChain(r)
		a.Seeds = make([][]byte, r.Count(maxSeeds/2, 2))
		left := maxSeeds
		for i := range a.Seeds {
			a.Seeds[i] = r.Bytes16(max(0, left-2))
			left -= 2 + len(a.Seeds[i])
		}
		a.Handles = make([]*id.Handle, r.Count(maxHandles, wire.MinHandle))
		for i := range a.Handles {
			a.Handles[i] = r.Handle()
		}
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	return a, nil
}

// ParseAnswer reads the answer to q and checks it: the pool is the one invited
// to, and the certificate is for q's node and owner. A refusal comes back as
// a *Refusal. Seeds are checked by package roster, handles by CheckHandle.
func (v *Invite) ParseAnswer(b []byte, q *JoinRequest, now int64) (*JoinAnswer, error) {
	a, err := readAnswer(b)
	if err != nil {
		return nil, err
	}
	if a.Refusal != nil {
		return nil, a.Refusal
	}
	if err := a.Pool.verify(); err != nil {
		return nil, err
	}
	if err := v.CheckPool(a.Pool); err != nil {
		return nil, err
	}
	if err := a.check(a.Pool, q.Node, q.Owner, now); err != nil {
		return nil, err
	}
	return a, nil
}

// ParseRenewal reads the answer to a RenewRequest for the certificate old.
func ParseRenewal(p *Pool, b []byte, old *Certificate, now int64) (*JoinAnswer, error) {
	a, err := readAnswer(b)
	if err != nil {
		return nil, err
	}
	if a.Refusal != nil {
		return nil, a.Refusal
	}
	if err := a.check(p, old.Node, old.Owner, now); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *JoinAnswer) check(p *Pool, node, owner [32]byte, now int64) error {
	if err := a.Chain.Verify(p, now); err != nil {
		return err
	}
	if leaf := a.Chain.Leaf(); leaf.Node != node || leaf.Owner != owner {
		return fmt.Errorf("%w: the certificate in the answer is for other keys", ErrNotMember)
	}
	a.Handles = slices.DeleteFunc(a.Handles, func(h *id.Handle) bool { return CheckHandle(h) != nil })
	return nil
}

// CheckHandle refuses a handle whose GUID is not that of its key.
func CheckHandle(h *id.Handle) error {
	if h.GUID != GUIDOf(h.Key) {
		return fmt.Errorf("%w: handle %s does not belong to its key", wire.ErrValue, h.GUID.Short())
	}
	return nil
}
