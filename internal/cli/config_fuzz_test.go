package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// FuzzConfig: what a file sets are settings of the table, with values that their
// flags take; it is read the same twice; and a key that is unknown is named.
func FuzzConfig(f *testing.F) {
	for _, s := range []string{
		"", "json = true\n", "timeout = '30s'\n[put]\nk = 3\n", "put.k = 3\n\"put.k\" = 4\n", "[put]\n",
		"dir = '/'\n", "k = [1]\n", "put = 1\n", "a = [[[[]]]]\n", "quiet = 2020-01-01\n", "\"\" = 1\n", "json = nan\n", "[[put]]\nk = 3\n",
		"[name]\n", "listen = [{a = 1}]\n", "'put.name' = 'x'\n[put.name]\n",
	} {
		f.Add(s)
	}
	byKey := make(map[string]setting)
	for _, s := range settings {
		byKey[s.key] = s
	}
	path := filepath.Join(f.TempDir(), ConfigName)
	load := func(t *testing.T, text string) (string, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		k, from, err := loadConfig(path)
		if err != nil {
			return "", err
		}
		for key := range from {
			s, ok := byKey[key]
			if !ok || key == "dir" {
				t.Errorf("%q sets %q", text, key)
			}
			if list, _ := k.Get(key).([]any); isTable(k.Get(key)) || slices.ContainsFunc(list, isTable) {
				t.Errorf("%q sets %s to a table", text, key)
			}
			if err := s.check(plainText(k.Get(key))); err != nil {
				t.Errorf("%q: %s: %v", text, key, err)
			}
		}
		return fmt.Sprint(k.All(), from), nil
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := load(t, text)
		again, err2 := load(t, text)
		if again != got || (err == nil) != (err2 == nil) {
			t.Errorf("%q is read as %s, %v, then as %s, %v", text, got, err, again, err2)
		}
		if err != nil {
			return
		}
		const key = "no-such-setting"
		if _, err := load(t, key+" = 1\n"+text); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%q with %s: %v", text, key, err)
		}
	})
}

// TestConfigBounded: a file far too large is refused, not read.
func TestConfigBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), ConfigName)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<30); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := loadConfig(path)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Error("a file of 1 GiB is taken")
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}
