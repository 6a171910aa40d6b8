package machinetest

import (
	"fmt"
	"strings"
	"testing"
)

// left is a test that Skip leaves out or fails.
type left struct {
	testing.TB
	failed, skipped string
}

func (l *left) Helper()           {}
func (l *left) Fatal(args ...any) { l.failed = fmt.Sprint(args...); panic(l) }
func (l *left) Skip(args ...any)  { l.skipped = fmt.Sprint(args...); panic(l) }

// TestSkip: what is left out says why, and fails where everything is required.
func TestSkip(t *testing.T) {
	for _, require := range []string{"", "all"} {
		t.Setenv("ATOLL_REQUIRE", require)
		l := &left{}
		func() {
			defer func() {
				if recover() != any(l) {
					t.Errorf("ATOLL_REQUIRE=%q: the test goes on", require)
				}
			}()
			Skip(l, "no moon")
		}()
		fails := strings.Contains(l.failed, "no moon")
		skips := strings.Contains(l.skipped, "no moon")
		if all := require == "all"; fails != all || skips == all {
			t.Errorf("ATOLL_REQUIRE=%q: failed %q, skipped %q", require, l.failed, l.skipped)
		}
	}
}
