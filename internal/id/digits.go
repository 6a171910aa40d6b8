package id

import "math/bits"

// DigitBits is b of the Pastry paper: a digit has 4 bits, a GUID 64 digits.
const DigitBits = 4

// Digits is the number of digits in a GUID.
const Digits = Size * 8 / DigitBits

// Digit returns digit row of g, 0 ≤ row < Digits, counted from the most
// significant.
func (g GUID) Digit(row int) int {
	b := g[row/2]
	if row%2 == 0 {
		return int(b >> 4)
	}
	return int(b & 0x0f)
}

// WithDigit returns g with digit row set to d, 0 ≤ d < 16.
func (g GUID) WithDigit(row, d int) GUID {
	if row%2 == 0 {
		g[row/2] = g[row/2]&0x0f | byte(d)<<4
	} else {
		g[row/2] = g[row/2]&0xf0 | byte(d)
	}
	return g
}

// CommonBits returns the length in bits of the longest common prefix, 256 if
// the GUIDs are equal.
func CommonBits(a, b GUID) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return i*8 + bits.LeadingZeros8(x)
		}
	}
	return Size * 8
}

// CommonDigits returns the length in whole digits of the longest common
// prefix: the row of the routing table of a in which b belongs.
func CommonDigits(a, b GUID) int { return CommonBits(a, b) / DigitBits }
