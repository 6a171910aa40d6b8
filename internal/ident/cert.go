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

func (c *Certificate) body() []byte {
	w := wire.Writer{B: make([]byte, 0, 400)}
	w.U8(1)
	w.Fixed(c.Pool[:])
	w.Fixed(c.Node[:])
	w.Fixed(c.Owner[:])
	w.U8(uint8(c.Role))
	w.Bytes8([]byte(c.Domain))
	w.U64(c.Quota)
	w.Bytes8([]byte(c.Name))
	w.U64(uint64(c.NotBefore))
	w.U64(uint64(c.NotAfter))
	w.Fixed(c.Serial[:])
	w.Fixed(c.Issuer[:])
	return w.B
}

// Append encodes the certificate.
func (c *Certificate) Append(w *wire.Writer) {
	w.Fixed(c.body())
	w.Fixed(c.Sig[:])
}

// Encode encodes the certificate by itself.
func (c *Certificate) Encode() []byte {
	return append(c.body(), c.Sig[:]...)
}

func readCertificate(r *wire.Reader) *Certificate {
	readVersion(r)
	c := &Certificate{}
	r.Into(c.Pool[:])
	r.Into(c.Node[:])
	r.Into(c.Owner[:])
	c.Role = Role(r.U8())
	if c.Role != Member && c.Role != Admin {
		r.Fail(wire.ErrValue)
	}
	c.Domain = readLabel(r)
	c.Quota = r.U64()
	c.Name = readLabel(r)
	c.NotBefore = readTime(r)
	c.NotAfter = readTime(r)
	if c.NotAfter < c.NotBefore {
		r.Fail(wire.ErrValue)
	}
	r.Into(c.Serial[:])
	r.Into(c.Issuer[:])
	r.Into(c.Sig[:])
	return c
}

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
