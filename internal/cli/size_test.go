package cli

import (
	"strconv"
	"testing"
)

// FuzzSize: what is a size is no less than nothing, and says the same again as
// a number of bytes.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"500MB", "20GiB", "1", "1.5 k", "0b", "9e99", "5€"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := parseSize(s)
		if err != nil {
			return
		}
		// Numbers over 2^53 pass through a float64.
		if again, err := parseSize(strconv.FormatInt(n, 10)); n < 0 || err != nil || n < 1<<53 && again != n {
			t.Errorf("%q is %d, which is %d, %v", s, n, again, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"90s", "24h", "30d", "-1s", "65535d", "1h2m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDuration(s)
		if err != nil {
			return
		}
		if again, err := parseDuration(d.String()); d < 0 || err != nil || again != d {
			t.Errorf("%q is %s, which is %s, %v", s, d, again, err)
		}
	})
}
