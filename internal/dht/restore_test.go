package dht

import (
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

// FuzzRestore: whatever a disk holds, a node starts from it or refuses it.
func FuzzRestore(f *testing.F) {
	g := id.FromPrefix("aa")
	c, s, m := sampleCert(), sampleSigned(), sampleRemove()
	h := &id.Handle{GUID: id.FromPrefix("bb"), Addrs: []string{"a"}}
	f.Add(byte(store.Head), "", encodeHead(block(1, 100), RoleDiverted, 5))
	f.Add(byte(store.Claim), subKey(c.Owner, c.Claim), Encode(&c))
	f.Add(byte(store.Tombstone), subKey(m.Owner, m.Claim), Encode(&m))
	f.Add(byte(store.Signed), "", Encode(&s))
	f.Add(byte(store.Holder), string(h.GUID[:]), pointerOp(g, h).Value)
	f.Add(byte(store.Meta), scrubKey, g[:])
	f.Add(byte(store.Meta), "", []byte{})
	f.Fuzz(func(t *testing.T, family byte, sub string, value []byte) {
		w := newWorld(t, LAN())
		x := w.at("80")
		cfg := w.cfg
		cfg.Self, cfg.Pool, cfg.Seed = x.h, w.pool, 1
		cfg.Sign, cfg.Verify, cfg.Usage = signer(x.key), w.verify, x.usage
		n := New(cfg, x, x)
		if n.Restore(store.Key{Family: store.Family(family), GUID: g, Sub: sub}, value) == nil {
			n.Start(w.net.Now, w.wall(), nil)
		}
	})
}
