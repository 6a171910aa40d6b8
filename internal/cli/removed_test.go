package cli

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

// TestGetOfRemoved: get without a name for the output learns that the file was
// removed when it asks for the name; the part of an earlier try goes then, too.
func TestGetOfRemoved(t *testing.T) {
	root := id.FromPrefix("ab12")
	link := seal.NewLink([32]byte{1}, root, seal.ReadKey{1}).Text()
	for code, stays := range map[string]bool{api.Removed: false, api.Unavailable: true} {
		dir, out := t.TempDir(), t.TempDir()
		n := apitest.New()
		n.Fail["stat"] = api.Errorf(code, "stat", "", "no")
		stop, err := apitest.Serve(n, dir)
		if err != nil {
			t.Fatal(err)
		}
		part := filepath.Join(out, "x.atoll-part")
		for name, b := range map[string]string{part: "bytes", filepath.Join(out, "x.atoll-map"): "ATM1" + string(root[:])} {
			if err := os.WriteFile(name, []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
		if code := a.run(t.Context(), []string{"get", link, "-o", out, "--dir", dir}); code == 0 {
			t.Error("got it")
		}
		if _, err := os.Stat(part); (err == nil) != stays {
			t.Errorf("%s: the part stays: %t", code, err == nil)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}
