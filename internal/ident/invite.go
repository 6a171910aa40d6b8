package ident

import (
	"fmt"
	"strings"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

const invitePrefix = "atoll-invite1:"

// Token is the secret of an invite.
type Token [16]byte

// Format keeps secrets out of logs.
func (t Token) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "token:…") }

// Invite is what a person is given to join a pool. Whoever has it can join:
// it is a secret until used.
//
//	version u8 = 1 · pool 32 · root key hash 32 · issuer GUID 32 · token 16 ·
//	expiry u64 · role u8 · quota u64 · addresses u8 (0–4), each u8+≤64
//
// As text: atoll-invite1: and base32 of these and a checksum of 4 bytes.
type Invite struct {
	Pool     PoolID
	RootHash [32]byte
	Issuer   id.GUID // the admin who answers; others pass the question on
	Token    Token
	Expiry   int64 // Unix ms by the issuer's clock
	Role     Role
	Quota    uint64
	Addrs    []string // of members to ask, the issuer's first
}

// Text is what is handed on. It holds the token.
func (v *Invite) Text() string { return armour(invitePrefix, v.encode()) }

// String names the pool and the issuer; the token stays out of logs.
func (v *Invite) String() string {
	return fmt.Sprintf("invite to pool %s from %s", v.Pool.Short(), v.Issuer.Short())
}

func (v *Invite) fields(c wire.Codec) {
	c.Version(1)
	c.Fixed(v.Pool[:])
	c.Fixed(v.RootHash[:])
	c.GUID(&v.Issuer)
	c.Fixed(v.Token[:])
	unixMS(c, &v.Expiry)
	wire.Enum(c, &v.Role, Member, Admin)
	c.U64(&v.Quota)
	wire.List8(c, &v.Addrs, id.MaxAddrs, 1, func(a *string, c wire.Codec) { c.Text8(a, id.MaxAddrLen) })
}

func (v *Invite) encode() []byte { return bytesOf(v.fields) }

// ParseInvite reads an invite as pasted: white space is left out. ErrTyping:
// it was mistyped or cut off; ErrBadInvite: it is something else.
func ParseInvite(text string) (*Invite, error) {
	text = strings.Join(strings.Fields(text), "")
	if !strings.HasPrefix(text, invitePrefix) {
		return nil, fmt.Errorf("%w: it should begin with %s", ErrBadInvite, invitePrefix)
	}
	const most = 2 * (256 + id.MaxAddrs*(id.MaxAddrLen+1)) // characters, generously
	if len(text) > most {
		return nil, fmt.Errorf("%w: too long", ErrBadInvite)
	}
	b, err := disarm(invitePrefix, text)
	if err != nil {
		return nil, err
	}
	r := wire.NewReader(b)
	v := &Invite{}
	v.fields(r.Codec())
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("%w: made by another version of atoll? (%w)", ErrBadInvite, err)
	}
	return v, nil
}

// CheckPool refuses a pool record that is not the one invited to.
func (v *Invite) CheckPool(p *Pool) error {
	if p.ID() != v.Pool || RootHash(p.Root) != v.RootHash {
		return fmt.Errorf("%w: the invite is for pool %s, that node is in %s (%s)", ErrWrongPool, v.Pool.Short(), p.ID().Short(), p.Name)
	}
	return nil
}

// tokenKey and tokenID are derived from a token. The issuer keeps these two and
// forgets the token.
func tokenKey(t Token) (key [32]byte) {
	blake3.DeriveKey("atoll/join-key/1", t[:], key[:])
	return key
}

func tokenID(key [32]byte) (name [16]byte) {
	sum := tagged("atoll/join-id/1", key[:])
	copy(name[:], sum[:])
	return name
}
