package seal

import (
	"errors"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

func links() []Link {
	root := id.FromPrefix("65a1fc")
	r := ReadKey(secretOf(0x5a))
	read := NewLink([32]byte{1, 2, 3, 4, 5}, root, r)
	return []Link{read, read.ForVerify(), NewLink([32]byte{1, 2, 3, 4, 5}, root, ReadKey{})}
}

func TestLinkRoundTrip(t *testing.T) {
	for i, l := range links() {
		s := l.Text()
		prefix, n := []string{"atoll:r1:", "atoll:v1:", "atoll:c1:"}[i], []int{116, 116, 64}[i]
		if !strings.HasPrefix(s, prefix) || len(s) != len(prefix)+n || len(s) > MaxLink {
			t.Errorf("%d characters: %s", len(s), s)
		}
		got, err := ParseLink(s)
		if err != nil || got != l {
			t.Errorf("%s: %v", s, err)
		}
		if err := got.CheckPool([32]byte{1, 2, 3, 4, 9}); err != nil {
			t.Error(err)
		}
		if err := got.CheckPool([32]byte{1, 2, 3, 5}); !errors.Is(err, ErrWrongPool) {
			t.Errorf("foreign pool: %v", err)
		}
	}
}

func TestLinkKeys(t *testing.T) {
	all := links()
	read, verify, clear := all[0], all[1], all[2]
	if r, ok := read.ReadKey(); !ok || r != ReadKey(secretOf(0x5a)) || read.VerifyKey() != r.Verify() {
		t.Error("keys of the read link")
	}
	if r, ok := verify.ReadKey(); ok || r != (ReadKey{}) || verify.VerifyKey() != read.VerifyKey() {
		t.Error("keys of the verify link")
	}
	if r, ok := clear.ReadKey(); !ok || r != (ReadKey{}) || clear.VerifyKey() != (VerifyKey{}) || clear.ForVerify() != clear {
		t.Error("keys of the clear link")
	}
	if verify.ForVerify() != verify {
		t.Error("a verify link weakened once more")
	}
}

// Every single wrong, missing, doubled or swapped character is named as a
// typing error, never taken for another file.
func TestLinkTypingErrors(t *testing.T) {
	for _, l := range links() {
		s := l.Text()
		var bad []string
		for i := range len(s) {
			for _, c := range []byte("a7A0 ") {
				if s[i] != c {
					bad = append(bad, s[:i]+string(rune(c))+s[i+1:])
				}
			}
			bad = append(bad, s[:i]+s[i+1:], s[:i]+s[i:i+1]+s[i:])
			if i > 0 && s[i] != s[i-1] {
				bad = append(bad, s[:i-1]+s[i:i+1]+s[i-1:i]+s[i+1:])
			}
		}
		bad = append(bad, "", "a", "atoll:", s+"\n", " "+s, strings.ToUpper(s), s+s, "atoll-invite1:abc")
		for _, b := range bad {
			if _, err := ParseLink(b); !errors.Is(err, ErrBadLink) {
				t.Fatalf("%q: %v", b, err)
			}
		}
	}
	// The kind stands under the checksum, too.
	s := links()[0].Text()
	if _, err := ParseLink("atoll:v1:" + s[prefixLen:]); !errors.Is(err, ErrBadLink) {
		t.Fatal("a read link passed for a verify link")
	}
}

func TestLinkErrorsKeepTheLink(t *testing.T) {
	s := links()[0].Text()
	for _, bad := range []string{s[:len(s)-1], s[:len(s)-1] + "!", strings.ToUpper(s), s[1:]} {
		_, err := ParseLink(bad)
		if err == nil || strings.Contains(err.Error(), s[20:40]) || strings.Contains(err.Error(), strings.ToUpper(s[20:40])) {
			t.Fatalf("%v", err)
		}
	}
}
