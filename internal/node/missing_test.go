package node

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// ranOnce is the folder of a member that has run and stopped, and a backup of it.
func ranOnce(t *testing.T) (cfg Config, backup string) {
	t.Helper()
	cfg, backup = testConfig(t.TempDir(), "n"), filepath.Join(t.TempDir(), "backup")
	n, err := Create(minute(t), cfg, PoolParams{Name: "test", K: 3, Overlay: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Backup(backup); err != nil {
		t.Fatal(err)
	}
	return cfg, backup
}

// foundOrOpen is what up does.
func foundOrOpen(t *testing.T, cfg Config) (*Node, error) {
	n, err := Open(minute(t), cfg)
	if errors.Is(err, ErrNotMade) {
		n, err = Create(minute(t), cfg, PoolParams{Name: "test", K: 3, Overlay: 1})
	}
	return n, err
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// TestMissingKey: where a member was, no key and no pool is made in place of one
// that is gone; the start, the doctor and a backup name it, and the backup brings
// it back.
func TestMissingKey(t *testing.T) {
	for _, gone := range []string{nodeKeyFile, ownerFile, memberFile} {
		cfg, backup := ranOnce(t)
		if err := os.Remove(filepath.Join(cfg.Dir, gone)); err != nil {
			t.Fatal(err)
		}
		before := strings.Join(names(t, cfg.Dir), " ")
		says := func(what string, err error) {
			t.Helper()
			var f *Fault
			if !errors.As(err, &f) || f.Code() != "bad_dir" || !strings.Contains(err.Error(), gone+" is missing from "+cfg.Dir) || !strings.Contains(err.Error(), "--restore") {
				t.Errorf("%s without %s: %v", what, gone, err)
			}
		}
		n, err := foundOrOpen(t, cfg)
		if err == nil {
			n.Close()
		}
		says("start", err)
		says("backup", BackupFolder(cfg.Dir, filepath.Join(t.TempDir(), "b")))
		found, err := Examine(minute(t), cfg.Dir, false)
		if err != nil || len(found) != 1 || found[0].OK || !strings.Contains(found[0].Detail, gone+" is missing") {
			t.Errorf("doctor without %s: %+v, %v", gone, found, err)
		}
		if after := strings.Join(names(t, cfg.Dir), " "); after != before {
			t.Errorf("without %s the folder was %s, and is %s", gone, before, after)
		}
		if _, other := ranOnce(t); Restore(cfg.Dir, other) == nil {
			t.Errorf("%s restored from the backup of another member", gone)
		}
		if err := Restore(cfg.Dir, backup); err != nil {
			t.Fatal(err)
		}
		if n, err = foundOrOpen(t, cfg); err != nil {
			t.Fatalf("%s restored: %v", gone, err)
		}
		n.Close()
	}
}

// TestMissingRootKey: the founder runs without the root key, and says what that
// means; the backup brings it back. Who was made an admin never had it.
func TestMissingRootKey(t *testing.T) {
	cfg, backup := ranOnce(t)
	path := filepath.Join(cfg.Dir, rootKeyFile)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	found, err := Examine(minute(t), cfg.Dir, false)
	if err != nil || found[0].OK || !strings.Contains(found[0].Detail, "root.key is missing from "+cfg.Dir) {
		t.Errorf("doctor: %+v, %v", found, err)
	}
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	n, err := Open(minute(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n.Rootless() == "" || !strings.Contains(log.String(), "root.key is missing") {
		t.Errorf("running: %q, %s", n.Rootless(), log.String())
	}
	n.Close()
	if err := Restore(cfg.Dir, backup); err != nil {
		t.Fatal(err)
	}
	if n, err = Open(minute(t), cfg); err != nil {
		t.Fatal(err)
	}
	if n.Rootless() != "" || n.who.root.IsZero() {
		t.Errorf("restored: %q", n.Rootless())
	}
	n.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(cfg.Dir, knownFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err = Examine(minute(t), cfg.Dir, false); err != nil || !found[0].OK {
		t.Errorf("an admin that joined: %+v, %v", found, err)
	}
}

// TestWrongRootKey: a root key of another pool is told at the start.
func TestWrongRootKey(t *testing.T) {
	cfg, _ := ranOnce(t)
	other, _ := ranOnce(t)
	b, err := os.ReadFile(filepath.Join(other.Dir, rootKeyFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.Dir, rootKeyFile), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := foundOrOpen(t, cfg); !errors.Is(err, ErrMixed) || !strings.Contains(err.Error(), "not the root key") {
		if err == nil {
			n.Close()
		}
		t.Errorf("start: %v", err)
	}
}

// TestDamagedInvites: a node starts without the invites that it cannot read.
func TestDamagedInvites(t *testing.T) {
	cfg, _ := ranOnce(t)
	if err := os.WriteFile(filepath.Join(cfg.Dir, inviteFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	n, err := Open(minute(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if _, _, err := n.Invite(InviteTerms{}); err != nil || !strings.Contains(log.String(), "invites given out cannot be read") {
		t.Errorf("%v, %s", err, log.String())
	}
}

// TestWrongOwnerKey: an owner's key that is not that of the certificate is told at
// the start and by the doctor: every put with it would be refused.
func TestWrongOwnerKey(t *testing.T) {
	cfg, _ := ranOnce(t)
	other, _ := ranOnce(t)
	b, err := os.ReadFile(filepath.Join(other.Dir, ownerFile))
	if err == nil {
		err = os.WriteFile(filepath.Join(cfg.Dir, ownerFile), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if n, err := foundOrOpen(t, cfg); !errors.Is(err, ErrMixed) {
		if err == nil {
			n.Close()
		}
		t.Errorf("start: %v", err)
	}
	if err := BackupFolder(cfg.Dir, filepath.Join(t.TempDir(), "b")); !errors.Is(err, ErrMixed) {
		t.Errorf("backup: %v", err)
	}
	if found, err := Examine(minute(t), cfg.Dir, false); err != nil || len(found) != 1 || found[0].OK || found[0].Check != "identity" {
		t.Errorf("doctor: %+v, %v", found, err)
	}
}

// TestBegunAnew: what a member can go on without is begun anew with a warning, by
// the doctor before it is done, too.
func TestBegunAnew(t *testing.T) {
	for _, gone := range []string{secretFile, listFile} {
		cfg, _ := ranOnce(t)
		if err := os.Remove(filepath.Join(cfg.Dir, gone)); err != nil {
			t.Fatal(err)
		}
		found, err := Examine(minute(t), cfg.Dir, false)
		if err != nil || !found[0].OK || found[0].Fix == "" || !strings.Contains(found[0].Detail, gone+" is missing") {
			t.Errorf("doctor without %s: %+v, %v", gone, found, err)
		}
		for _, warns := range []bool{true, false} {
			var log bytes.Buffer
			cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
			n, err := Open(minute(t), cfg)
			if err != nil {
				t.Fatal(err)
			}
			anew := n.BegunAnew()
			n.Close()
			if warned := strings.Contains(log.String(), gone+" was missing"); warned != warns || (anew != "") != warns {
				t.Errorf("%s gone: warned %t, want %t: %q, %s", gone, warned, warns, anew, log.String())
			}
		}
	}
}

// TestMissingMark: a node's folder without its mark is not called something else's.
func TestMissingMark(t *testing.T) {
	cfg, _ := ranOnce(t)
	mark := filepath.Join(cfg.Dir, markFile)
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	for _, damaged := range []string{"", "atoll-", "\xff\xff"} {
		if err := os.WriteFile(mark, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(minute(t), cfg); !errors.Is(err, ErrBadMark) || !strings.Contains(err.Error(), "> '"+mark+"'") {
			t.Errorf("mark %q: %v", damaged, err)
		}
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	_, err := Open(minute(t), cfg)
	if !errors.Is(err, ErrNoMark) || !strings.Contains(err.Error(), "echo 'atoll-node 1' > '"+mark+"'") {
		t.Fatalf("without its mark: %v", err)
	}
	if err := os.WriteFile(mark, []byte(markContent), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := Open(minute(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Close()
}
