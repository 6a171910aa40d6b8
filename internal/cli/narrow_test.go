package cli

import (
	"strings"
	"testing"

	"github.com/jedib0t/go-pretty/v6/text"
)

// TestFold: lines are broken between words, attributes take no room, and without
// the breaks the text is as it was.
func TestFold(t *testing.T) {
	const s = "\x1b[1mIs my data safe?       \x1b[0m Yes: all 1,234 blocks have 3 copies.\n\nNode alpha, at 127.0.0.1:4001.\n"
	for _, width := range []int{20, 30, 60, 61, 80, 200} {
		got := fold(s, width)
		for _, line := range strings.Split(got, "\n") {
			if text.StringWidthWithoutEscSequences(strings.TrimRight(line, " ")) > width {
				t.Errorf("width %d: %q", width, line)
			}
		}
		if back := strings.ReplaceAll(got, "\n  ", " "); back != s {
			t.Errorf("width %d changed the text: %q", width, back)
		}
	}
	if got := fold("one two three", 8); got != "one two\n  three" {
		t.Errorf("%q", got)
	}
}

// TestNarrowed: a table leaves out what it can spare, and only as much as it must.
func TestNarrowed(t *testing.T) {
	a := &app{out: &strings.Builder{}, outTTY: false}
	table := func() string {
		w := newTable("NODE", "USED", "ADDRESS")
		w.AppendRow([]any{"65a1fc", "12 GiB", strings.Repeat("a", 1020)})
		return a.narrowed(w, []int{2}, []int{3, 2})
	}
	if s := table(); strings.Contains(s, "aaa") || !strings.Contains(s, "12 GiB") {
		t.Errorf("1024 columns: %q", s)
	}
}
