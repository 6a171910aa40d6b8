package cli

import (
	"math"
	"strings"
	"testing"
	"time"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/sim"
)

func TestWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1<<20 - 1: "1.0 MiB", 31457280: "30.0 MiB", 256 << 20: "256.0 MiB", 500 << 30: "500.0 GiB", 1<<20 - 50: "1.0 MiB", math.MaxInt64: "8.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %s, want %s", n, got, want)
		}
	}
	for s, want := range map[float64]string{0.012: "12 ms", 1.5: "1.5 s", 1: "1 s", 40: "40 s", 600: "10 min", 86400: "24 h", 40 * 86400: "40 days"} {
		if got := seconds(s); got != want {
			t.Errorf("seconds(%v) = %s, want %s", s, got, want)
		}
	}
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "500MB": 500e6, "20GiB": 20 << 30, "1.5 KiB": 1536, "1g": 1e9, "7b": 7} {
		if got, err := parseSize(s); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", "-1", "1XB", "1KiBB", "1e30GiB", "9999999999999999999", "NaN"} {
		if n, err := parseSize(s); err == nil {
			t.Errorf("parseSize(%q) = %d", s, n)
		}
	}
	for s, want := range map[string]time.Duration{"90s": 90 * time.Second, "30d": 720 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "5", "-1s", "xd", "-3d", "99999d9"} {
		if d, err := parseDuration(s); err == nil {
			t.Errorf("parseDuration(%q) = %v", s, d)
		}
	}
}

func TestProgressWords(t *testing.T) {
	for want, p := range map[string]api.Progress{
		"12.0 MiB of 30.0 MiB · 4.0 MiB/s · 4.5 s left": {Bytes: 12 << 20, Total: 30 << 20, Rate: 4 << 20, ETAS: 4},
		"12.0 MiB · 1.0 MiB/s":                          {Bytes: 12 << 20, Total: -1, Rate: 1 << 20, ETAS: -1},
		"7 blocks":                                      {Blocks: 7, Total: -1, ETAS: -1},
		`0 B of 1.0 KiB · waiting: busy: alpha\x1b[2J`:  {Total: 1024, StalledOn: "busy: alpha\x1b[2J", ETAS: 3},
	} {
		want = strings.Replace(want, "4.5 s", "4 s", 1)
		if got := progressWords(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSimWords(t *testing.T) {
	const m = time.Minute
	for want, p := range map[string]sim.Progress{
		"run: 12m0s of 2h0m0s, 1,002 nodes, after 41 s, 51,904 events/s, 312.0 MiB, 6 min left": {
			Phase: "run", At: 12 * m, End: 120 * m, Nodes: 1002, Real: 41 * time.Second, EventsPerS: 51904.4, Memory: 312 << 20, Left: 6 * m,
		},
		"build: 1s, 9 nodes, after 4 s, 7 events/s, 1.0 MiB": {Phase: "build", At: time.Second, Nodes: 9, Real: 4 * time.Second, EventsPerS: 7, Memory: 1 << 20},
		"3 of 20 seeds, 6 min left":                          {Phase: "3 of 20 seeds", Left: 6 * m},
	} {
		if got := simWords(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A terminal gets bars, colours and shading, and the bar goes away again.
func TestTerminal(t *testing.T) {
	var out, errs strings.Builder
	a := &app{out: &out, err: &errs, outTTY: true, errTTY: true}
	pr := a.progress("sending")
	pr.report()(api.Progress{Phase: "sending", Bytes: 1 << 20, Total: 2 << 20, ETAS: 1})
	pr.done()
	if got := a.markPrefix(apitest.Others[3], 3); got != "\x1b[1;4md46\x1b[0m"+apitest.Others[3].String()[3:] {
		t.Errorf("%q", got)
	}
	n := apitest.New()
	table, err := n.Table(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wide, narrow, all strings.Builder
	a.figure107(&all, table, id.Digits, 200)
	if own := strings.ToUpper(table.GUID.String()); !strings.HasPrefix(all.String(), "Routing table of "+own+":") {
		t.Errorf("all rows:\n%s", all.String())
	}
	a.figure107(&wide, table, 4, 200)
	a.figure107(&narrow, table, 4, 80)
	if !strings.Contains(wide.String(), "\x1b[100m65A1  \x1b[0m") {
		t.Errorf("own cells are not grey:\n%s", wide.String())
	}
	for _, l := range strings.Split(narrow.String(), "\n") {
		if plain := strings.NewReplacer("\x1b[100m", "", "\x1b[0m", "").Replace(l); len([]rune(plain)) > 80 {
			t.Errorf("%d columns: %s", len([]rune(plain)), plain)
		}
	}
	if silent := (&app{err: &errs}).progress("x"); silent.report() != nil {
		t.Error("progress without a terminal")
	}
}

// TestPutWordsOfOneCopy: with one copy there is no "all".
func TestPutWordsOfOneCopy(t *testing.T) {
	got := putWords("h", api.PutResult{Size: 6, Blocks: 1, NewBlocks: 1, MS: 2, Copies: api.Copies{Min: 1, Target: 1}})
	if want := "Stored h: 6 B in 1 block (1 new), 2 ms. The one copy is synced."; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestComplainLines: what an error has to say in lines stands in lines, one command
// each, and nothing of it reaches the terminal unescaped.
func TestComplainLines(t *testing.T) {
	var errs strings.Builder
	a := &app{err: &errs}
	a.complain(&api.Error{Code: api.BadRequest, Op: "rm", Message: "2 files are named x", Detail: &api.Detail{Text: "atoll rm aaaa  # 1\natoll rm bbbb  # \x1b[2J"}})
	if want := "atoll: rm: 2 files are named x\n  atoll rm aaaa  # 1\n  atoll rm bbbb  # \\x1b[2J\n"; errs.String() != want {
		t.Errorf("%q, want %q", errs.String(), want)
	}
}

// TestSafetyWordsOfOneBlock: of one block there is no "all".
func TestSafetyWordsOfOneBlock(t *testing.T) {
	st := api.Status{Pool: api.PoolStatus{K: 3, W: 2}, Members: api.MemberCount{Total: 3, Live: 3}, Safety: api.Safety{Blocks: 1, Full: 1}}
	if got, _ := safetyWords(st); got != "Yes: the one block has 3 copies." {
		t.Error(got)
	}
	st.Safety.Silent = apitest.Others[:1]
	if got, _ := safetyWords(st); got != "As far as can be told: the one block counted has 3 copies. Silent just now: d13da300; the blocks led there are not counted, the copies there still are." {
		t.Error(got)
	}
}
