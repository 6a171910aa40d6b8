package node

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// backupFiles are what cannot be had again from the pool: who one is, whom to ask,
// and the list of one's own files.
var backupFiles = []string{
	markFile, nodeKeyFile, ownerFile, rootKeyFile, secretFile, memberFile, inviteFile, listFile,
	rosterFile, knownFile, // where the others are
}

// ErrNotBackup is a file to restore from that no backup wrote.
var ErrNotBackup = &Fault{FaultCode: "bad_request", Text: "not a backup"}

// maxBackupFile bounds a file taken from a backup: a catalogue of a million
// files.
const maxBackupFile = 512 << 20

// Backup saves keys, secret, membership and catalogue to a new file of mode
// 0600. Whoever reads it can act as this member and read its files.
func (n *Node) Backup(path string) error { return n.home.backupMember(path) }

// Intact is an error if the folder no longer holds the keys and the certificate of
// its member.
func (n *Node) Intact() error { return n.home.sound() }

// backupMember is backup of a folder that holds all that makes its member: without a
// key, or with another's, the copy would be worth nothing when it is needed.
func (h *home) backupMember(path string) error {
	if err := h.sound(); err != nil {
		return err
	}
	if err := h.member(); err != nil {
		return err
	}
	return h.backup(path)
}

func (h *home) backup(path string) error { return h.backupTo(path, syncDir) }

// backupTo is backup; sync makes the name in a folder durable.
func (h *home) backupTo(path string, sync func(dir string) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &Fault{FaultCode: "exists", Text: path + " exists; a backup never replaces a file"}
	}
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	t := tar.NewWriter(f)
	err = h.eachBackupFile(func(name string, b []byte) error {
		if err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}); err != nil {
			return err
		}
		_, err := t.Write(b)
		return err
	})
	if err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	// Some file systems cannot sync a folder, of a USB stick, say, or of a server.
	err = sync(filepath.Dir(path))
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// Restore makes a folder that of the member whose backup path is. The folder
// must not hold a member yet, or be that member's and lack files: those alone are
// then put back. The boot epoch is not in a backup: the first
// start learns from the others that it must jump (10-overlay §1).
func Restore(dir, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	found := make(map[string][]byte)
	t := tar.NewReader(f)
	for {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %w", path, ErrNotBackup, err)
		}
		if filepath.Base(hdr.Name) != hdr.Name || !isBackupFile(hdr.Name) || hdr.Size > maxBackupFile {
			return fmt.Errorf("%s: %w: it holds %q", path, ErrNotBackup, hdr.Name)
		}
		if found[hdr.Name], err = io.ReadAll(io.LimitReader(t, maxBackupFile)); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	if found[memberFile] == nil || found[nodeKeyFile] == nil {
		return fmt.Errorf("%s: %w: no member is in it", path, ErrNotBackup)
	}
	h, err := openHome(dir)
	if err != nil {
		return err
	}
	defer h.close()
	if h.used() {
		if h.whole() == nil && len(h.lost()) == 0 && h.rootless() == "" {
			return fmt.Errorf("%s: %w; restore into an empty one", h.dir, ErrMember)
		}
		if err := h.complete(found); err != nil {
			return err
		}
	}
	// The membership comes last: a restore cut short can be done again.
	for _, name := range backupFiles {
		if b := found[name]; b != nil && name != memberFile {
			if err := h.write(name, b); err != nil {
				return err
			}
		}
	}
	return h.write(memberFile, found[memberFile])
}

// complete takes out of a backup what the member's folder has still, which is newer,
// and refuses a backup of another member.
func (h *home) complete(found map[string][]byte) error {
	return h.eachBackupFile(func(name string, b []byte) error {
		switch name {
		case nodeKeyFile, ownerFile, rootKeyFile, secretFile:
			if found[name] != nil && !bytes.Equal(b, found[name]) {
				return &Fault{FaultCode: "bad_dir", Text: fmt.Sprintf("%s is not that of the member in the backup: restore into an empty folder, or delete it if it is wrong", h.path(name))}
			}
		}
		found[name] = b
		return nil
	})
}

// eachBackupFile calls f for what the folder has of what a backup holds.
func (h *home) eachBackupFile(f func(name string, b []byte) error) error {
	for _, name := range backupFiles {
		b, err := h.read(name)
		if err == nil && b != nil {
			err = f(name, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isBackupFile(name string) bool { return slices.Contains(backupFiles, name) }
