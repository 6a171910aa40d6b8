package node

import (
	"crypto/rand"
	"errors"
	"fmt"

	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/wire"
)

// identity is who this node is, as its home folder holds it.
type identity struct {
	node   ident.Key // proves the GUID
	owner  ident.Key // signs what this member stores
	root   ident.Key // of the pool; zero unless it was made here
	secret [32]byte  // block keys are derived from it
	pool   *ident.Pool
	chain  ident.Chain
}

// keys makes the keys that are missing, in a folder that is complete or new, and
// loads all. A crash in between leaves keys that the next start finds.
func (h *home) keys() (*identity, error) {
	for _, name := range []string{nodeKeyFile, ownerFile} {
		if _, err := h.key(name, true); err != nil {
			return nil, err
		}
	}
	if !h.has(secretFile) {
		s := make([]byte, len(identity{}.secret))
		_, err := rand.Read(s)
		if err == nil {
			err = h.write(secretFile, s)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", h.path(secretFile), err)
		}
	}
	return h.load()
}

// load loads what keys does and makes nothing: what is missing stays zero.
func (h *home) load() (*identity, error) {
	who := &identity{}
	for _, f := range []struct {
		name string
		into *ident.Key
	}{{nodeKeyFile, &who.node}, {ownerFile, &who.owner}, {rootKeyFile, &who.root}} {
		var err error
		if *f.into, err = h.key(f.name, false); err != nil {
			return nil, err
		}
	}
	s, err := h.read(secretFile)
	if err == nil && s != nil && len(s) != len(who.secret) {
		err = fmt.Errorf("%d bytes instead of %d", len(s), len(who.secret))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", h.path(secretFile), err)
	}
	copy(who.secret[:], s)
	return who, nil
}

func (h *home) key(name string, create bool) (ident.Key, error) {
	b, err := h.read(name)
	if err == nil && b == nil {
		if !create {
			return ident.Key{}, nil
		}
		var k ident.Key
		if k, err = ident.NewKey(rand.Reader); err == nil {
			err = h.write(name, k.Encode())
		}
		if err == nil {
			return k, nil
		}
	}
	if err == nil {
		var k ident.Key
		if k, err = ident.ParseKey(b); err == nil {
			return k, nil
		}
	}
	return ident.Key{}, fmt.Errorf("%s: %w", h.path(name), err)
}

// membership loads pool and certificate into who. The folder holds a member.
func (h *home) membership(who *identity) error {
	b, err := h.read(memberFile)
	if err == nil {
		err = who.parse(b)
	}
	if err == nil && who.chain.Leaf().Owner != who.owner.Public() {
		err = errors.New("certificate and owner key do not belong together")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", h.path(memberFile), err)
	}
	if !who.root.IsZero() && who.root.Public() != who.pool.Root {
		return fmt.Errorf("%s: not the root key of the pool", h.path(rootKeyFile))
	}
	return nil
}

// enrol makes this folder that of a new member, with nothing on its list yet.
func (h *home) enrol(who *identity) error {
	err := h.saveMembership(who)
	if err == nil && !h.has(listFile) {
		err = h.write(listFile, nil)
	}
	return err
}

// saveMembership makes this folder that of a member.
func (h *home) saveMembership(who *identity) error { return h.write(memberFile, who.encode()) }

// encode is the member file: pool record u16+ · certificate chain u16+.
func (who *identity) encode() []byte {
	var w wire.Writer
	w.Bytes16(who.pool.Encode())
	w.Bytes16(who.chain.Encode())
	return w.B
}

// parse is the inverse. The chain must be that of who's key.
func (who *identity) parse(b []byte) error {
	r := wire.NewReader(b)
	pool, chain := r.Bytes16(1<<16-1), r.Bytes16(1<<16-1)
	err := r.Close()
	if err == nil {
		who.pool, err = ident.ParsePool(pool)
	}
	if err == nil {
		who.chain, err = ident.ParseChain(chain)
	}
	if err == nil {
		err = who.chain.VerifySignatures(who.pool)
	}
	if err == nil && who.chain.Leaf().Node != who.node.Public() {
		err = errors.New("certificate and node key do not belong together")
	}
	return err
}

// PoolParams are the parameters of a new pool.
type PoolParams struct {
	Name    string
	K       int
	Overlay ident.Overlay
}

// found makes a new pool with this node as its first admin.
func (h *home) found(who *identity, p PoolParams, name, domain string, wall int64) error {
	var nonce [16]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	var err error
	if who.root.IsZero() {
		if who.root, err = h.key(rootKeyFile, true); err != nil {
			return err
		}
	}
	if who.pool, err = ident.NewPool(who.root, nonce, p.Name, p.K, p.Overlay); err != nil {
		return err
	}
	who.chain, err = ident.Certify(who.pool, who.root, nil, ident.Subject{
		Node: who.node.Public(), Owner: who.owner.Public(), Role: ident.Admin, Name: name, Domain: domain,
	}, wall)
	if err != nil {
		return err
	}
	return h.enrol(who)
}
