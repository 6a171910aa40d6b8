package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

const (
	maxPushes    = 32   // copies being sent because others asked
	maxTombs     = 4096 // tombstones of one block that are told: some 800 KB
	pushPatience = 20 * machine.Second
)

// onWant sends records, or a block.
func (n *Node) onWant(p *peer, m *wantMsg) {
	if m.bytes {
		if n.pushes >= maxPushes || !n.holds(m.guids[0]) {
			return // the asker looks elsewhere after a while
		}
		n.pushes++
		n.push(p, m.guids[0], RoleReplica, func(bool) { n.pushes-- })
		return
	}
	n.records(m.guids, func(items []offered) {
		for {
			o := &offerMsg{req: m.req}
			for size := 0; len(items) > 0 && len(o.items) < maxOffer; {
				if size += items[0].size(); size > offerBytes && len(o.items) > 0 {
					break
				}
				o.items = append(o.items, items[0])
				items = items[1:]
			}
			o.more = len(items) > 0
			n.send(p, o)
			if !o.more {
				return
			}
		}
	})
}

// recordKeys lists the store keys of what is known of e, without its bytes: of
// tombstones the latest, claims before them, so that who has the last but one of
// several claims does not drop its copy before it hears of the next.
func (n *Node) recordKeys(e *entry) (keys []store.Key) {
	if e.signed() {
		if !e.have() {
			return nil
		}
		keys = append(keys, store.Key{Family: store.Signed, GUID: e.guid})
		if e.x != nil && e.x.ver.fork {
			keys = append(keys, store.Key{Family: store.Signed, GUID: e.guid, Sub: forkSub})
		}
		return keys
	}
	var tombs []store.Key
	e.claims(func(c *claim) {
		k := store.Key{Family: store.Claim, GUID: e.guid, Sub: subKey(n.owners.keys[c.owner], c.id)}
		switch {
		case c.tomb:
			k.Family = store.Tombstone
			tombs = append(tombs, k)
		case e.have() || e.flags&flagDiverted != 0:
			keys = append(keys, k)
		}
	})
	return append(keys, tombs[max(0, len(tombs)-maxTombs):]...)
}

// records reads the records of several GUIDs, maxRecords to an item.
func (n *Node) records(gs []id.GUID, f func([]offered)) {
	var keys []store.Key
	for _, g := range gs {
		if e := n.tree.get(g); e != nil {
			keys = append(keys, n.recordKeys(e)...)
		}
	}
	if len(keys) == 0 {
		f(nil)
		return
	}
	n.load(keys, func(vs [][]byte, err error) {
		if err != nil {
			n.recordsApart(gs, f)
			return
		}
		var items []offered
		for i, k := range keys {
			if len(vs[i]) == 0 {
				continue
			}
			if l := len(items); l == 0 || items[l-1].guid != k.GUID || len(items[l-1].certs)+len(items[l-1].tombs) == maxRecords {
				items = append(items, offered{guid: k.GUID})
			}
			o := &items[len(items)-1]
			var bad error
			switch k.Family {
			case store.Claim:
				var c StoreCert
				if c, bad = DecodeStoreCert(vs[i]); bad == nil {
					o.certs = append(o.certs, c)
				}
			case store.Tombstone:
				var t Remove
				if t, bad = DecodeRemove(vs[i]); bad == nil {
					o.tombs = append(o.tombs, t)
				}
			case store.Signed:
				var s Signed
				if s, bad = DecodeSigned(vs[i]); bad == nil {
					o.signed = append(o.signed, s)
				}
			}
			if bad != nil {
				n.trace("dht.corrupt", id.GUID{}, k.GUID, 0, bad.Error())
			}
		}
		f(items)
	})
}

// recordsApart reads the records of each GUID by itself, where one of all is bad.
func (n *Node) recordsApart(gs []id.GUID, f func([]offered)) {
	if len(gs) == 1 {
		if e := n.tree.get(gs[0]); e != nil && e.signed() {
			n.proveSigned(gs[0], func([]Signed) {})
		}
		f(nil)
		return
	}
	var items []offered
	open := len(gs)
	for _, g := range gs {
		n.records([]id.GUID{g}, func(o []offered) {
			items = append(items, o...)
			if open--; open == 0 {
				f(items)
			}
		})
	}
}

// push brings p a copy of g from this disk, and calls f when p has it, or has
// not. The records go first: one that came back with its disk, or has fetched the
// block meanwhile, wants no bytes.
func (n *Node) push(p *peer, g id.GUID, role Role, f func(ok bool)) {
	n.records([]id.GUID{g}, func(items []offered) {
		if len(items) == 0 || len(items[0].certs) == 0 {
			f(false)
			return
		}
		o := items[0]
		c := copyMsg{role: role, guid: g}
		c.certs = o.certs[:min(len(o.certs), maxCerts)]
		c.tombs = o.tombs[:min(len(o.tombs), maxCerts)]
		n.offer(p, c, func(m *copyAckMsg) {
			switch {
			case m == nil:
				f(false)
			case m.want:
				n.pushBytes(p, c, f)
			default:
				n.holdsBy(g, p, m.receipts)
				f(true)
			}
		})
	})
}

// pushBytes sends p the copy with its bytes.
func (n *Node) pushBytes(p *peer, c copyMsg, f func(ok bool)) {
	n.loadBlock(c.guid, func(b []byte) {
		if len(b) == 0 {
			f(false)
			return
		}
		c.block = b
		start := n.now
		n.offer(p, c, func(m *copyAckMsg) {
			if m == nil || m.want {
				f(false)
				return
			}
			n.measure(p, len(b), start)
			n.holdsBy(c.guid, p, m.receipts)
			f(true)
		})
		n.stats.Repairs++
		n.stats.RepairBytes += int64(len(b))
	})
}

// offer sends a copy for repair and gives f the answer; nil if there is none, or
// a refusal.
func (n *Node) offer(p *peer, c copyMsg, f func(*copyAckMsg)) {
	wait := 4*p.bulk.rto(machine.Second, n.cfg.AckFloor, pushPatience) + transferTime(len(c.block), n.rate)
	n.ask(p, min(max(wait, n.cfg.ClientTimeout), pushPatience), func(req uint64) machine.Message {
		c.req = req
		return &c
	}, func(p *peer, m machine.Message) {
		switch m := m.(type) {
		case *copyAckMsg:
			n.says(p, m.free)
			f(m)
			return
		case *refuseMsg:
			if m.code == codeFull {
				p.full(n.now.Add(machine.Minute))
			}
		case nil:
			n.silent(p)
		}
		f(nil)
	})
}
