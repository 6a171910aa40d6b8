package id

import (
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var ring = new(big.Int).Lsh(big.NewInt(1), 8*Size)

func num(g GUID) *big.Int { return new(big.Int).SetBytes(g[:]) }

func point(n *big.Int) (g GUID) {
	new(big.Int).Mod(n, ring).FillBytes(g[:])
	return g
}

// anyGUID draws points all over the ring, and often close to 0, to 2^256 and to
// each other, where carries and wrap-around are.
func anyGUID(t *rapid.T, label string) GUID {
	near := big.NewInt(rapid.Int64Range(-3, 3).Draw(t, label+" offset"))
	switch rapid.IntRange(0, 3).Draw(t, label+" where") {
	case 0:
		return point(near)
	case 1:
		return point(new(big.Int).Add(new(big.Int).Rsh(ring, 1), near))
	case 2:
		return point(new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), uint(rapid.IntRange(0, 255).Draw(t, label+" bit"))), near))
	}
	return GUID(rapid.SliceOfN(rapid.Byte(), Size, Size).Draw(t, label))
}

// naiveDist is the shorter way round, by big numbers.
func naiveDist(a, b GUID) *big.Int {
	d := new(big.Int).Mod(new(big.Int).Sub(num(a), num(b)), ring)
	if e := new(big.Int).Sub(ring, d); d.Sign() != 0 && e.Cmp(d) < 0 {
		return e
	}
	return d
}

func TestArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyGUID(t, "a"), anyGUID(t, "b")
		for _, x := range []struct {
			what      string
			got, want GUID
		}{
			{"a + b", a.Add(b), point(new(big.Int).Add(num(a), num(b)))},
			{"a - b", a.Sub(b), point(new(big.Int).Sub(num(a), num(b)))},
			{"a / 2", a.Half(), point(new(big.Int).Rsh(num(a), 1))},
			{"dist", Dist(a, b), point(naiveDist(a, b))},
			{"dist the other way", Dist(b, a), Dist(a, b)},
		} {
			if x.got != x.want {
				t.Fatalf("%s = %s, want %s (a %s, b %s)", x.what, x.got, x.want, a, b)
			}
		}
		if a.Cmp(b) != num(a).Cmp(num(b)) || a.Less(b) != (num(a).Cmp(num(b)) < 0) {
			t.Fatal("order is not that of numbers")
		}
	})
}

func TestMidpointIsHalfway(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyGUID(t, "a"), anyGUID(t, "b")
		m := Midpoint(a, b)
		before, after := m.Sub(a), b.Sub(m)
		if before.Add(after) != b.Sub(a) || after.Less(before) || after.Sub(before).Cmp(point(big.NewInt(1))) > 0 {
			t.Fatalf("midpoint of %s and %s is %s", a, b, m)
		}
	})
}

func TestCmpDistIsATotalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, a, b := anyGUID(t, "key"), anyGUID(t, "a"), anyGUID(t, "b")
		want := naiveDist(a, key).Cmp(naiveDist(b, key))
		if want == 0 {
			want = a.Cmp(b)
		}
		if got := CmpDist(key, a, b); got != want || CmpDist(key, b, a) != -want {
			t.Fatalf("CmpDist = %d, want %d", got, want)
		}
		if (CmpDist(key, a, b) == 0) != (a == b) {
			t.Fatal("two points share a rank")
		}
	})
}

func TestDigits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := anyGUID(t, "g")
		row, d := rapid.IntRange(0, Digits-1).Draw(t, "row"), rapid.IntRange(0, 15).Draw(t, "digit")
		if want := strings.IndexByte("0123456789abcdef", g.String()[row]); g.Digit(row) != want {
			t.Fatalf("digit %d of %s is %d", row, g, g.Digit(row))
		}
		h := g.WithDigit(row, d)
		if h.Digit(row) != d || h.WithDigit(row, g.Digit(row)) != g {
			t.Fatalf("%s with digit %d = %x is %s", g, row, d, h)
		}
		want := Digits
		if h != g {
			want = row
		}
		if got := CommonDigits(g, h); got != want {
			t.Fatalf("%s and %s share %d digits, want %d", g, h, got, want)
		}
	})
}

func TestCommonBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyGUID(t, "a"), anyGUID(t, "b")
		want := 8 * Size
		if a != b {
			want -= new(big.Int).Xor(num(a), num(b)).BitLen()
		}
		if got := CommonBits(a, b); got != want {
			t.Fatalf("%s and %s share %d bits, want %d", a, b, got, want)
		}
	})
}

func TestArcContains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, k := Arc{anyGUID(t, "lo"), anyGUID(t, "hi")}, anyGUID(t, "k")
		want := a.Lo == a.Hi
		if num(a.Lo).Cmp(num(a.Hi)) < 0 {
			want = num(a.Lo).Cmp(num(k)) <= 0 && num(k).Cmp(num(a.Hi)) < 0
		} else if a.Lo != a.Hi {
			want = num(a.Lo).Cmp(num(k)) <= 0 || num(k).Cmp(num(a.Hi)) < 0
		}
		if got := a.Contains(k); got != want {
			t.Fatalf("[%s, %s) contains %s: %v", a.Lo, a.Hi, k, got)
		}
		if !FullArc.Contains(k) || !FullArc.IsFull() {
			t.Fatal("the whole ring lacks a point")
		}
	})
}

func TestParse(t *testing.T) {
	want := FromPrefix("65A1FC")
	if want.String() != "65a1fc"+strings.Repeat("0", 58) || want.Short() != "65a1fc00" || want.IsZero() || !(GUID{}).IsZero() {
		t.Errorf("FromPrefix gives %s", want)
	}
	for _, s := range []string{want.String(), strings.ToUpper(want.String())} {
		if g, err := Parse(s); err != nil || g != want {
			t.Errorf("Parse(%s) = %s, %v", s, g, err)
		}
	}
	for _, bad := range []string{"", "65a1fc", want.String() + "0", want.String()[:63], "g" + want.String()[1:], " " + want.String()[1:], "0x" + want.String()[2:]} {
		if _, err := Parse(bad); !errors.Is(err, ErrBadGUID) {
			t.Errorf("Parse(%q): %v", bad, err)
		}
	}
	b, err := json.Marshal(map[GUID]GUID{want: want})
	if err != nil {
		t.Fatal(err)
	}
	var back map[GUID]GUID
	if err := json.Unmarshal(b, &back); err != nil || back[want] != want {
		t.Errorf("JSON %s gives %v, %v", b, back, err)
	}
	if json.Unmarshal([]byte(`"65a1fc"`), new(GUID)) == nil {
		t.Error("JSON took a short GUID")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(FromPrefix("d46a1c").String())
	f.Fuzz(func(t *testing.T, s string) {
		if g, err := Parse(s); err == nil && g.String() != strings.ToLower(s) {
			t.Errorf("%q parses as %s", s, g)
		}
	})
}

func BenchmarkCmpDist(b *testing.B) {
	key, x, y := FromPrefix("65a1fc"), FromPrefix("d46a1c"), FromPrefix("d467c4")
	for b.Loop() {
		CmpDist(key, x, y)
	}
}
