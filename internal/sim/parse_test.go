package sim

import "testing"

// FuzzNames: what a command line may say of a run says the same again.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"none", "poisson:30m", "poisson:1us", "lan", "sphere"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseChurn(s); err == nil {
			if again, err := ParseChurn(c.String()); err != nil || again != c {
				t.Errorf("%q is %s, which is %s, %v", s, c, again, err)
			}
		}
		if p, err := ParseTopology(s); err == nil && string(p) != s {
			t.Errorf("%q is %s", s, p)
		}
	})
}
