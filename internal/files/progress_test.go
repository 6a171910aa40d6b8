package files

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// In fake time a pool that takes 10 ms a block, 16 at once, and stops for 5 s
// in the middle: reports come at most 5 times a second, the rate settles at
// what it is, and the stall is named.
func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk, chunks = 1000, 3200
		p := newPool()
		c := open(t, p, t.TempDir(), chunkOf(chunk))
		hold := make(chan struct{})
		p.wait = func(_ context.Context, op string) error {
			if op == "put" {
				<-time.After(10 * time.Millisecond)
			}
			return nil
		}
		start := time.Now()
		var reports []Progress
		var times []time.Duration
		go func() {
			<-time.After(1500 * time.Millisecond)
			p.mu.Lock()
			p.wait = func(context.Context, string) error { <-hold; return nil }
			p.mu.Unlock()
			<-time.After(5 * time.Second)
			close(hold)
		}()
		_, err := c.PutFile(t.Context(), PutRequest{
			Source: bytes.NewReader(data(1, chunk*chunks)), Size: chunk * chunks,
			Progress: func(p Progress) {
				reports = append(reports, p)
				times = append(times, time.Since(start))
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		stalled := false
		for i, r := range reports {
			if i > 0 && i < len(reports)-1 && times[i]-times[i-1] < 200*time.Millisecond {
				t.Errorf("reports %v apart", times[i]-times[i-1])
			}
			if i > 0 && (r.Bytes < reports[i-1].Bytes || r.Total != chunk*chunks) {
				t.Errorf("%+v after %+v", r, reports[i-1])
			}
			stalled = stalled || strings.HasPrefix(r.StalledOn, "block ")
		}
		if !stalled {
			t.Error("the stall was not named")
		}
		if r := reports[4]; r.Rate < 1_000_000 || r.Rate > 2_000_000 || r.ETAS < 0 {
			t.Errorf("after a second: %+v, want about 1.6 MB/s", r)
		}
		last := reports[len(reports)-1]
		if last.Bytes != chunk*chunks || last.Blocks != chunks+7+1 || last.StalledOn != "" {
			t.Errorf("%+v", last)
		}
	})
}

func TestProgressWithoutReceiver(t *testing.T) {
	var m *meter
	m.add(1, 1, true)
	m.phase("x")
	m.begin([32]byte{})
	m.refused([32]byte{}, nil)
	m.end([32]byte{})
	m.close()
}

func TestEscapeName(t *testing.T) {
	for name, want := range map[string]string{
		"plain.txt":          "plain.txt",
		"with space":         "with space",
		"bücher 日本.tar":      "bücher 日本.tar",
		"a\nb":               `a\x0ab`,
		"\x1b[31mred":        `\x1b[31mred`,
		"\u202egpj.exe":      `\u{202e}gpj.exe`,
		"a\u200bb\ufeff":     `a\u{200b}b\u{feff}`,
		"back\\slash":        `back\\slash`,
		"\xff":               `\xff`,
		"\x7f\u0085":         `\x7f\u{85}`,
		"non\u00a0breaking":  `non\u{a0}breaking`,
		"\u2028line":         `\u{2028}line`,
		"\U000e0041tag":      `\u{e0041}tag`,
		"filler\u3164":       `filler\u{3164}`,
		"replacement \ufffd": "replacement \ufffd",
	} {
		if got := EscapeName(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func FuzzEscapeName(f *testing.F) {
	f.Add("a\nb", `a\x0ab`)
	f.Add("\u202e", "x")
	f.Fuzz(func(t *testing.T, a, b string) {
		ea, eb := EscapeName(a), EscapeName(b)
		for _, r := range ea {
			if r < 0x20 || r == 0x7f || r == 0x202e || r == 0x1b || r == 0x9b {
				t.Fatalf("%q shows %q", a, ea)
			}
		}
		if (ea == eb) != (a == b) {
			t.Fatalf("%q and %q both show as %s", a, b, ea)
		}
	})
}
