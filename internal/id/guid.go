// Package id holds the identifiers of the overlay: 256-bit GUIDs with their
// digits and prefixes, circular distance on the ring of GUIDs, and node
// handles. It imports nothing of the project; everything else imports it.
//
// Coulouris et al., 5th ed., §10.4 and §10.5.1: GUIDs are opaque, uniformly
// distributed, and computed from the state they name or from a public key.
package id

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
)

// Size is the length of a GUID in bytes.
const Size = 32

// ErrBadGUID is returned by Parse for anything but 64 hexadecimal digits.
var ErrBadGUID = errors.New("a GUID has 64 hexadecimal digits")

// GUID is a globally unique identifier: a point on the ring of 2^256 points,
// most significant byte first. The zero GUID is a valid point; where "none"
// must be told apart, a pointer or a flag says so.
type GUID [Size]byte

// Parse reads 64 hexadecimal digits of either case.
func Parse(s string) (GUID, error) {
	var g GUID
	if len(s) != 2*Size {
		return g, fmt.Errorf("%w, not %d characters", ErrBadGUID, len(s))
	}
	if _, err := hex.Decode(g[:], []byte(s)); err != nil {
		return GUID{}, fmt.Errorf("%w: %w", ErrBadGUID, err)
	}
	return g, nil
}

// FromPrefix returns the GUID whose leading digits are hexDigits and whose
// remaining digits are zero. It serves the chapter's figures, whose nodes are
// named by six digits. It panics on anything but up to 64 hexadecimal digits.
func FromPrefix(hexDigits string) GUID {
	padded := hexDigits + string(bytes.Repeat([]byte{'0'}, max(0, 2*Size-len(hexDigits))))
	g, err := Parse(padded)
	if err != nil {
		panic("id: " + hexDigits + ": " + err.Error())
	}
	return g
}

// String returns all 64 digits, lower case.
func (g GUID) String() string { return hex.EncodeToString(g[:]) }

// Short returns the first 8 digits, for people's eyes only.
func (g GUID) Short() string { return hex.EncodeToString(g[:4]) }

// IsZero reports whether every digit is zero.
func (g GUID) IsZero() bool { return g == GUID{} }

// Cmp orders GUIDs as numbers: -1, 0 or +1.
func (g GUID) Cmp(h GUID) int { return bytes.Compare(g[:], h[:]) }

// Less reports whether g is numerically smaller than h.
func (g GUID) Less(h GUID) bool { return g.Cmp(h) < 0 }

// MarshalText renders the 64 digits, so that JSON shows GUIDs as strings.
func (g GUID) MarshalText() ([]byte, error) { return []byte(g.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (g *GUID) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err != nil {
		return err
	}
	*g = v
	return nil
}
