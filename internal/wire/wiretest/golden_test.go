package wiretest

import (
	"strings"
	"testing"
)

// What Bytes writes, it reads back.
func TestGoldenFile(t *testing.T) {
	text := "Golden bytes of x.\n\none\n    0102\n    03\n\nnone\n\ntwo\n    ff\n"
	kept := parse(t, text)
	if len(kept) != 2 || string(kept["one"]) != "\x01\x02\x03" || string(kept["two"]) != "\xff" {
		t.Errorf("%x", kept)
	}
}

func TestDifference(t *testing.T) {
	for _, c := range []struct{ got, want, line, shows string }{
		{"a\nb\n", "a\nc\n", "line 2", "wanted c"},
		{"a\n", "a\nb\n", "line 2", "wanted b"},
		{"b\n", "", "line 1", "got    b"},
	} {
		if d := difference(c.got, c.want); !strings.HasPrefix(d, c.line) || !strings.Contains(d, c.shows) {
			t.Errorf("%q and %q: %s", c.got, c.want, d)
		}
	}
}
