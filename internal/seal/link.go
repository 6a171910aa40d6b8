package seal

import (
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// A link is a capability in the form of text:
//
//	atoll:r1:  reads      base32 of pool tag 4 ‖ root GUID 32 ‖ r 32 ‖ checksum 4   (116 characters)
//	atoll:v1:  verifies   base32 of pool tag 4 ‖ root GUID 32 ‖ v 32 ‖ checksum 4   (116 characters)
//	atoll:c1:  clear      base32 of pool tag 4 ‖ root GUID 32 ‖ checksum 4          (64 characters)
//
// in lower-case RFC 4648 base32 without padding. The pool tag is the first 4
// bytes of the pool id; the checksum the first 4 bytes of the BLAKE3 of the
// prefix and all before the checksum, so that no kind passes for another.

// Errors of links. Messages never contain the link.
var (
	ErrBadLink   = errors.New("bad link")
	ErrWrongPool = errors.New("link of another pool")
)

// Capability is what a link allows.
type Capability byte

// Capabilities.
const (
	CanRead   Capability = 'r'
	CanVerify Capability = 'v'
	CanClear  Capability = 'c' // read a clear file
)

// String returns the name that `stat` shows.
func (c Capability) String() string {
	switch c {
	case CanRead:
		return "read"
	case CanVerify:
		return "verify"
	case CanClear:
		return "clear"
	}
	return "none"
}

// Link names a file of a pool and carries the key to it. Text gives the link
// itself; String, and so every log line, the root's GUID only.
type Link struct {
	Cap     Capability
	PoolTag [4]byte
	Root    id.GUID
	key     [32]byte
}

// NewLink returns the link to read the file with this root in a pool. A zero
// r makes it the link of a clear file.
func NewLink(pool [32]byte, root id.GUID, r ReadKey) Link {
	l := Link{Cap: CanRead, PoolTag: [4]byte(pool[:4]), Root: root, key: r}
	if r == (ReadKey{}) {
		l.Cap = CanClear
	}
	return l
}

// ForVerify returns the weaker link that verifies and repairs. Links of clear
// files and verify links are returned as they are.
func (l Link) ForVerify() Link {
	if l.Cap == CanRead {
		l.Cap, l.key = CanVerify, ReadKey(l.key).Verify()
	}
	return l
}

// ReadKey returns r; ok is false for a verify link. It is zero for clear files.
func (l Link) ReadKey() (r ReadKey, ok bool) {
	if l.Cap == CanVerify {
		return r, false
	}
	return l.key, true
}

// VerifyKey returns v, zero for clear files.
func (l Link) VerifyKey() VerifyKey { return l.ForVerify().key }

// IsZero reports whether l is no link at all.
func (l Link) IsZero() bool { return l == Link{} }

// CheckPool returns ErrWrongPool unless l belongs to pool.
func (l Link) CheckPool(pool [32]byte) error {
	if l.PoolTag != [4]byte(pool[:4]) {
		return fmt.Errorf("%w: it belongs to pool %x…, this node to pool %x…", ErrWrongPool, l.PoolTag, pool[:4])
	}
	return nil
}

// String names the file without giving access to it.
func (l Link) String() string { return l.Cap.String() + " link to " + l.Root.Short() }

// Format keeps the key out of logs and errors, whatever the verb.
func (l Link) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, l.String()) }

// MaxLink is the length of the longest link.
const MaxLink = prefixLen + 116

const (
	scheme    = "atoll:"
	prefixLen = len(scheme) + 3
	alphabet  = "abcdefghijklmnopqrstuvwxyz234567"
)

var base = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

func checksum(prefix string, payload []byte) [4]byte {
	sum := blake3.Sum256(append([]byte(prefix), payload...))
	return [4]byte(sum[:4])
}

// Text returns the link to hand to a person.
func (l Link) Text() string {
	prefix := scheme + string(rune(l.Cap)) + "1:"
	b := append(l.PoolTag[:len(l.PoolTag):len(l.PoolTag)], l.Root[:]...)
	if l.Cap != CanClear {
		b = append(b, l.key[:]...)
	}
	sum := checksum(prefix, b)
	return prefix + base.EncodeToString(append(b, sum[:]...))
}

// ParseLink reads what Text returns, and nothing else. Its errors wrap
// ErrBadLink and say what a person got wrong.
func ParseLink(s string) (Link, error) {
	if !strings.HasPrefix(s, scheme) {
		if strings.HasPrefix(s, "atoll-invite") {
			return Link{}, fmt.Errorf("%w: this is an invite; it goes to join", ErrBadLink)
		}
		return Link{}, fmt.Errorf("%w: a link starts with %q", ErrBadLink, scheme)
	}
	if len(s) < prefixLen {
		return Link{}, fmt.Errorf("%w: it ends after %d characters", ErrBadLink, len(s))
	}
	prefix, body := s[:prefixLen], s[prefixLen:]
	l := Link{Cap: Capability(s[len(scheme)])}
	want := 116
	switch prefix[len(scheme):] {
	case "r1:", "v1:":
	case "c1:":
		want = 64
	default:
		return Link{}, fmt.Errorf("%w: it starts with none of atoll:r1:, atoll:v1: and atoll:c1: of this version", ErrBadLink)
	}
	for i := range len(body) {
		if strings.IndexByte(alphabet, body[i]) < 0 {
			return Link{}, fmt.Errorf("%w: typing error: character %d cannot stand in a link", ErrBadLink, prefixLen+i+1)
		}
	}
	if len(body) != want {
		return Link{}, fmt.Errorf("%w: typing error: %d characters follow %q, not %d", ErrBadLink, len(body), prefix, want)
	}
	b, err := base.DecodeString(body)
	if err != nil {
		return Link{}, fmt.Errorf("%w: typing error", ErrBadLink)
	}
	payload, sum := b[:len(b)-4], b[len(b)-4:]
	if [4]byte(sum) != checksum(prefix, payload) {
		return Link{}, fmt.Errorf("%w: typing error: the checksum does not match", ErrBadLink)
	}
	copy(l.PoolTag[:], payload)
	copy(l.Root[:], payload[4:])
	copy(l.key[:], payload[4+id.Size:])
	if l.Cap != CanClear && l.key == [32]byte{} || l.Text() != s {
		return Link{}, fmt.Errorf("%w: not in its one valid form", ErrBadLink)
	}
	return l, nil
}
