package wiretest

import (
	"strings"
	"testing"
)

// What Bytes writes, it reads back.
func TestGoldenFile(t *testing.T) {
	samples := map[string]string{"text": "atoll:r1:\"a\"\n", "bytes": "\x00\xff" + strings.Repeat("x", 100), "one": "\xfe", "digits": "00ff"}
	file := "Golden bytes of x.\n"
	for name, b := range samples {
		file += "\n" + name + "\n" + show([]byte(b))
	}
	kept := parse(t, file)
	if len(kept) != len(samples) {
		t.Errorf("%d samples of %d", len(kept), len(samples))
	}
	for name, b := range samples {
		if string(kept[name]) != b {
			t.Errorf("%s: %q from\n%s", name, kept[name], file)
		}
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
