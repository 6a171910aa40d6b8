package node

import (
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/wire/wiretest"
)

func goldenWho(t testing.TB) *identity {
	t.Helper()
	root, key := ident.KeyFromSeed([32]byte{1}), ident.KeyFromSeed([32]byte{2})
	pool, err := ident.NewPool(root, [16]byte{7}, "lagoon", 3, ident.Pastry)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ident.Certify(pool, root, nil, ident.Subject{Node: key.Public(), Owner: [32]byte{3}, Role: ident.Admin, Name: "first"}, 1_767_225_600_000)
	if err != nil {
		t.Fatal(err)
	}
	return &identity{node: key, pool: pool, chain: chain}
}

func tempHome(t testing.TB) *home {
	t.Helper()
	h, err := openHome(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

// TestGoldenBytes: a folder of an earlier release is a member's still. Its key,
// invite and roster files are those of packages ident and roster.
func TestGoldenBytes(t *testing.T) {
	h, who := tempHome(t), goldenWho(t)
	if err := h.saveMembership(who); err != nil {
		t.Fatal(err)
	}
	if _, err := h.nextEpoch(6); err != nil {
		t.Fatal(err)
	}
	file := func(name string, value any, load func() (any, error)) wiretest.Sample {
		b, err := h.read(name)
		if err != nil {
			t.Fatal(err)
		}
		return wiretest.Sample{Name: "file " + name, Value: value, Bytes: b, Decode: func(b []byte) (any, error) {
			if err := h.write(name, b); err != nil {
				t.Fatal(err)
			}
			return load()
		}}
	}
	wiretest.Bytes(t, "node", []wiretest.Sample{
		file(markFile, nil, func() (any, error) { return nil, checkMark(h.dir) }),
		file(memberFile, who, func() (any, error) {
			got := &identity{node: who.node}
			b, err := h.read(memberFile)
			if err != nil {
				return nil, err
			}
			return got, got.parse(b)
		}),
		file(epochFile, uint32(7), func() (any, error) { return h.nextEpoch(0) }),
	})
}

// FuzzMember: what is taken for a membership is written as the same bytes.
func FuzzMember(f *testing.F) {
	who := goldenWho(f)
	f.Add(who.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		got := &identity{node: who.node}
		if got.parse(b) == nil && string(got.encode()) != string(b) {
			t.Errorf("%x is written as %x", b, got.encode())
		}
	})
}

// FuzzBackup: a file that is no backup is refused, and leaves no member.
func FuzzBackup(f *testing.F) {
	h, who := tempHome(f), goldenWho(f)
	if _, err := h.keys(); err != nil {
		f.Fatal(err)
	}
	if err := h.saveMembership(who); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "backup")
	if err := h.backup(path); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("no tar"))
	f.Fuzz(func(t *testing.T, b []byte) {
		path, dir := filepath.Join(t.TempDir(), "backup"), t.TempDir()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		err := Restore(dir, path)
		_, missing := os.Stat(filepath.Join(dir, memberFile))
		if (err == nil) != (missing == nil) {
			t.Errorf("restored: %v; member file: %v", err, missing)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if !isBackupFile(e.Name()) && e.Name() != lockFile {
				t.Errorf("a backup left the file %q", e.Name())
			}
		}
	})
}
