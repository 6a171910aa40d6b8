package files

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func entry(i int, name string) Entry {
	root := id.GUID{byte(i), byte(i >> 8), 1}
	return Entry{Name: name, Link: seal.NewLink(testPool, root, seal.ReadKey{byte(i), 1}), Size: int64(i), PutAt: time.UnixMilli(int64(1000 + i))}
}

func openCatalogue(t testing.TB, path string) *Catalogue {
	t.Helper()
	c, err := OpenCatalogue(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

var oddNames = []string{"", "plain", "with space", "new\nline", "\"quoted\" \\", "bücher", "\xff\xfe", "\u202egpj.exe", strings.Repeat("\xff", 255)}

func TestCatalogueSurvivesReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalogue")
	c := openCatalogue(t, path)
	for i, n := range oddNames {
		if err := c.Add(entry(i, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Remove(entry(1, "").Link.Root); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(entry(99, "").Link.Root); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(entry(2, "other name")); err != nil { // replaces
		t.Fatal(err)
	}
	want := c.List("")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Add(entry(50, "late")); err == nil {
		t.Error("added after Close")
	}
	again := openCatalogue(t, path)
	got := again.List("")
	if len(got) != len(oddNames)-1 || len(got) != len(want) || again.Damaged() != 0 {
		t.Fatalf("%d entries, want %d; %d damaged", len(got), len(want), again.Damaged())
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%d: %+v, want %+v", i, got[i], want[i])
		}
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: the links are secret", info.Mode())
	}
}

// Cut anywhere, as a power cut may, the catalogue keeps all entries before the
// cut, and takes new ones.
func TestCatalogueTornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalogue")
	c := openCatalogue(t, path)
	var ends []int64
	for i := range 4 {
		if err := c.Add(entry(i, fmt.Sprintf("file %d", i))); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, c.size)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := 0; cut < len(whole); cut += 3 {
		p := filepath.Join(t.TempDir(), "catalogue")
		if err := os.WriteFile(p, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, e := range ends {
			if int64(cut) >= e {
				want++
			}
		}
		c := openCatalogue(t, p)
		if c.Len() != want || c.Damaged() != 0 {
			t.Fatalf("cut at %d: %d entries, want %d", cut, c.Len(), want)
		}
		if err := c.Add(entry(9, "new")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if c := openCatalogue(t, p); c.Len() != want+1 || c.Damaged() != 0 {
			t.Fatalf("cut at %d, then added: %d entries, %d damaged", cut, c.Len(), c.Damaged())
		}
	}
}

func TestCatalogueDamagedLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalogue")
	good := entry(1, "good").line()
	flipped := []byte(entry(2, "flipped").line())
	flipped[7] ^= 1 // a digit of the time: nothing but the checksum notices
	lines := []string{
		good, string(flipped), strings.Repeat("x", 3*maxLine), strings.Repeat("y", 200<<10), "",
		withSum("2 + 1 2 3"), withSum("1 - xyz"), withSum("1 + 1 -5 " + entry(1, "").Link.Text() + ` "n"`), entry(3, "last").line(),
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openCatalogue(t, path)
	if c.Len() != 2 || c.Damaged() != 7 {
		t.Fatalf("%d entries, %d damaged", c.Len(), c.Damaged())
	}
	if err := c.Add(entry(4, "more")); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if !bytes.Contains(b, flipped) {
		t.Error("a damaged line was dropped: someone may still mend it")
	}
}

func TestCatalogueListAndNames(t *testing.T) {
	c := openCatalogue(t, filepath.Join(t.TempDir(), "catalogue"))
	for i, n := range []string{"b", "a/", "ab", "abc", "b", "ac"} {
		if err := c.Add(entry(i, n)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{"": "a/ ab abc ac b b", "a": "a/ ab abc ac", "ab": "ab abc", "abcd": "", "c": ""} {
		var names []string
		for _, e := range c.List(prefix) {
			names = append(names, e.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("prefix %q: %q, want %q", prefix, got, want)
		}
	}
	if e, err := c.Named("ab"); err != nil || e != entry(2, "ab") {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := c.Named("a"); !hasCode(err, "not_found") {
		t.Error(err)
	}
	var many *AmbiguousError
	if _, err := c.Named("b"); !hasCode(err, "bad_request") || !errors.As(err, &many) || len(many.Entries) != 2 || strings.Count(many.Detail(), "atoll rm ") != 2 {
		t.Error(err)
	}
}

func TestCatalogueCompacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalogue")
	var b bytes.Buffer
	for i := range 3 * compactOver {
		fmt.Fprintln(&b, entry(i%10, fmt.Sprint("name ", i)).line())
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openCatalogue(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Size() > 10*300 || info.Mode().Perm() != 0o600 {
		t.Fatalf("%+v, %v", info, err)
	}
	if err := c.Add(entry(20, "after")); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if c := openCatalogue(t, path); c.Len() != 11 {
		t.Fatalf("%d entries", c.Len())
	}
}

func TestCatalogueConcurrentAdds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalogue")
	c := openCatalogue(t, path)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := c.Add(entry(i, "same")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_ = c.Close()
	if c := openCatalogue(t, path); c.Len() != 64 {
		t.Fatalf("%d entries", c.Len())
	}
}

func FuzzCatalogueLine(f *testing.F) {
	for i, n := range oddNames {
		f.Add(entry(i, n).line())
	}
	f.Add(withSum("1 - " + id.GUID{1}.String()))
	f.Fuzz(func(t *testing.T, line string) {
		body, ok := checkLine(line)
		if !ok {
			body = line // let the parser see what no checksum lets through
		}
		if e, ok := parseEntry(body); ok && e.line() != withSum(body) {
			t.Fatalf("%q encodes to %q", body, e.line())
		}
	})
}

func FuzzCatalogueFile(f *testing.F) {
	f.Add([]byte(entry(1, "x").line() + "\n"))
	f.Add([]byte("\n\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "catalogue")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := OpenCatalogue(path)
		if err != nil {
			t.Fatal(err)
		}
		n := c.Len()
		if err := c.Add(entry(7, "new")); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if c, err = OpenCatalogue(path); err != nil || c.Len() < n {
			t.Fatalf("%d entries, %d before: %v", c.Len(), n, err)
		}
		_ = c.Close()
	})
}
