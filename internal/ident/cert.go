package ident

import (
	"fmt"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Role is what a certificate allows.
type Role uint8

// Roles. Each may do what the one before it may.
const (
	Member Role = 1 // stores and fetches
	Admin  Role = 2 // also invites and revokes members
)

func (r Role) String() string {
	switch r {
	case Member:
		return "member"
	case Admin:
		return "admin"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ParseRole is the inverse of String.
func ParseRole(s string) (Role, error) {
	for _, r := range []Role{Member, Admin} {
		if r.String() == s {
			return r, nil
		}
	}
	return 0, fmt.Errorf("no role is called %q: member or admin", s)
}

// Spans of time in ms (20-dht §7).
const (
	day          int64 = 24 * 3600 * 1000
	Validity           = 400 * day      // of a new certificate
	RenewAfter         = 200 * day      // an older one is renewed by any admin
	Skew               = day            // how wrong a clock may be before a certificate is refused for it
	MaxClockDiff       = int64(300_000) // between two nodes, before somebody is told
)

// Serial tells apart the certificates of one issuer: a hash of what they say.
type Serial [16]byte

// Certificate says that Issuer takes the node with key Node for a member.
//
//	version u8 = 1 · pool 32 · node key 32 · owner key 32 · role u8 ·
//	domain u8+≤64 · quota u64 · name u8+≤64 · not-before u64 · not-after u64 ·
//	serial 16 · issuer key 32 · signature 64
type Certificate struct {
	Pool      PoolID
	Node      [32]byte
	Owner     [32]byte
	Role      Role
	Domain    string // failure domain; empty: the node is one by itself
	Quota     uint64 // bytes its owner may store; 0: no limit
	Name      string // for people
	NotBefore int64  // Unix ms
	NotAfter  int64
	Serial    Serial
	Issuer    [32]byte // the root key, or the node key of an admin
	Sig       [64]byte
}

// GUID is that of the certified node.
func (c *Certificate) GUID() id.GUID { return GUIDOf(c.Node) }

// Hash names the certificate itself.
func (c *Certificate) Hash() [32]byte { return blake3.Sum256(c.Encode()) }

// covered is what the signature is over.
func (c *Certificate) covered(f wire.Codec) {
	f.Version(1)
	f.Fixed(c.Pool[:])
	f.Fixed(c.Node[:])
	f.Fixed(c.Owner[:])
	wire.Enum(f, &c.Role, Member, Admin)
	label(f, &c.Domain)
	f.U64(&c.Quota)
	label(f, &c.Name)
	unixMS(f, &c.NotBefore)
	unixMS(f, &c.NotAfter)
	f.Check(c.NotAfter >= c.NotBefore, wire.ErrValue)
	f.Fixed(c.Serial[:])
	f.Fixed(c.Issuer[:])
}

func (c *Certificate) fields(f wire.Codec) {
	c.covered(f)
	f.Fixed(c.Sig[:])
}

func (c *Certificate) body() []byte { return bytesOf(c.covered) }

// Encode encodes the certificate by itself.
func (c *Certificate) Encode() []byte { return bytesOf(c.fields) }

// inTime checks now against the certificate's window, widened by Skew.
func (c *Certificate) inTime(now int64) error {
	switch {
	case now < c.NotBefore-Skew:
		return fmt.Errorf("%w: the certificate of %s is valid from %s; the clock it was checked by says %s",
			ErrClock, c.who(), date(c.NotBefore), date(now))
	case now > c.NotAfter+Skew:
		return fmt.Errorf("%w: that of %s ended at %s; the clock it was checked by says %s",
			ErrExpired, c.who(), date(c.NotAfter), date(now))
	}
	return nil
}

func (c *Certificate) who() string {
	if c.Name == "" {
		return c.GUID().Short()
	}
	return c.GUID().Short() + " (" + c.Name + ")"
}

// date renders Unix ms for people.
func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05 UTC") }

// CompareClocks returns ErrClock if two wall clocks are further apart than
// MaxClockDiff; the message says which way, and by how much.
func CompareClocks(ours, theirs int64) error {
	d, word := ours-theirs, "ahead of"
	if d < 0 {
		d, word = -d, "behind"
	}
	if d <= MaxClockDiff {
		return nil
	}
	return fmt.Errorf("%w: this computer's clock (%s) is %s %s the other node's (%s); set the wrong one and try again",
		ErrClock, date(ours), (time.Duration(d) * time.Millisecond).Round(time.Second), word, date(theirs))
}
