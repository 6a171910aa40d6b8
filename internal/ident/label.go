package ident

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxLabel bounds the names of pools, nodes and failure domains in bytes.
const MaxLabel = 64

// CheckLabel refuses what cannot stand in a table or a log line: more than
// MaxLabel bytes, broken UTF-8, control and format characters (such as those
// that turn the direction of writing), spaces at either end. Empty is fine.
func CheckLabel(s string) error {
	switch {
	case len(s) > MaxLabel:
		return fmt.Errorf("%w: %d bytes, at most %d", ErrBadLabel, len(s), MaxLabel)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: not UTF-8", ErrBadLabel)
	case strings.TrimSpace(s) != s:
		return fmt.Errorf("%w: begins or ends with a space", ErrBadLabel)
	case strings.ContainsFunc(s, unprintable):
		return fmt.Errorf("%w: control characters", ErrBadLabel)
	}
	return nil
}

func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unprintable(r) {
			return -1
		}
		return r
	}, s)
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }

// Label makes a label of any text, such as a host name, by leaving out what is
// not allowed.
func Label(s string) string {
	s = strings.TrimSpace(printable(s))
	for len(s) > MaxLabel {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}
