package files

import (
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"atoll.example/atoll/internal/seal"
)

// EscapeName makes a name that somebody else chose safe to print: control,
// formatting (bidirectional overrides among them) and other invisible
// characters and bytes that are not UTF-8 appear as \xNN or \u{N}, a backslash
// as two. The result is one line, and differs for different names.
func EscapeName(name string) string {
	plain := true
	for _, r := range name {
		if !printable(r) {
			plain = false
			break
		}
	}
	if plain && utf8.ValidString(name) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			writeHex(&b, `\x`, uint32(name[i]), 2, "")
		case r == '\\':
			b.WriteString(`\\`)
		case printable(r):
			b.WriteRune(r)
		case r < 0x80:
			writeHex(&b, `\x`, uint32(r), 2, "")
		default:
			writeHex(&b, `\u{`, uint32(r), 1, "}")
		}
		i += n
	}
	return b.String()
}

// printable: letters, marks, numbers, punctuation, symbols and the plain
// space; no control, format, surrogate, private or other space characters.
func printable(r rune) bool { return r != '\\' && unicode.IsPrint(r) && !invisible(r) }

// invisible are printable by their class, and yet show nothing or reorder.
func invisible(r rune) bool {
	switch r {
	case 0x034f, 0x115f, 0x1160, 0x17b4, 0x17b5, 0x3164, 0xffa0:
		return true
	}
	return unicode.Is(unicode.Variation_Selector, r)
}

func writeHex(b *strings.Builder, prefix string, v uint32, width int, suffix string) {
	const digits = "0123456789abcdef"
	b.WriteString(prefix)
	started := false
	for shift := 28; shift >= 0; shift -= 4 {
		d := v >> shift & 15
		if started = started || d != 0 || shift < 4*width; started {
			b.WriteByte(digits[d])
		}
	}
	b.WriteString(suffix)
}

// localName reports whether name may be created in a directory here: valid in
// a manifest, and a plain local name to this operating system.
func localName(name string) bool {
	return seal.ValidName(name) && filepath.IsLocal(name) && filepath.Base(name) == name
}
