package pastry

import (
	"crypto/subtle"
	"fmt"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// The saved table (10-overlay §3.3):
//
//	"ATOV" · version u16 · pool 32 · N u64 · widths (u8 count, u8 bits each) ·
//	count u32 × (handle · srtt u32 µs · last heard u64 s · part u8) · BLAKE3-256
const (
	saveMagic   = "ATOV"
	saveVersion = 1
	maxSaved    = 4096
)

// Parts of a saved node.
const (
	partLeaf uint8 = iota
	partTable
	partRemembered
)

// savedNode is one node of a saved table.
type savedNode struct {
	h     *id.Handle
	srtt  machine.Duration
	heard int64 // wall clock, s
	part  uint8
}

type savedTable struct {
	pool   [32]byte
	n      uint64
	widths []byte
	nodes  []savedNode
}

func (t *savedTable) encode() []byte {
	w := wire.Writer{B: make([]byte, 0, 64+128*len(t.nodes))}
	w.Fixed([]byte(saveMagic))
	w.U16(saveVersion)
	w.Fixed(t.pool[:])
	w.U64(t.n)
	w.Bytes8(t.widths)
	w.U32(uint32(len(t.nodes)))
	for _, s := range t.nodes {
		w.Handle(s.h)
		w.U32(micros(s.srtt))
		w.U64(uint64(s.heard))
		w.U8(s.part)
	}
	return seal(w.B)
}

// seal appends the checksum.
func seal(b []byte) []byte {
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

func decodeSaved(b []byte) (*savedTable, error) {
	if len(b) < 32 {
		return nil, wire.ErrShort
	}
	body, sum := b[:len(b)-32], b[len(b)-32:]
	if want := blake3.Sum256(body); subtle.ConstantTimeCompare(want[:], sum) != 1 {
		return nil, fmt.Errorf("%w: checksum", wire.ErrMalformed)
	}
	r := wire.NewReader(body)
	if string(r.Fixed(4)) != saveMagic || r.U16() != saveVersion {
		return nil, wire.ErrVersion
	}
	t := &savedTable{}
	r.Into(t.pool[:])
	t.n = r.U64()
	t.widths = r.Bytes8(id.Digits)
	count := r.U32()
	if count > maxSaved || int(count)*(wire.MinHandle+13) > r.Len() {
		return nil, wire.ErrBound
	}
	t.nodes = make([]savedNode, 0, count)
	for range count {
		s := savedNode{h: r.Handle(), srtt: machine.Duration(r.U32()), heard: int64(r.U64()), part: r.U8()}
		if s.part > partRemembered {
			r.Fail(wire.ErrValue)
		}
		if r.Err() != nil {
			break
		}
		t.nodes = append(t.nodes, s)
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return t, nil
}

// save emits the table for the next start.
func (n *Node) save() {
	if n.state != Ready && n.state != Leaving {
		return
	}
	n.changed, n.saved, n.everSaved = false, n.now, true
	if n.cfg.NoSave {
		return
	}
	t := savedTable{pool: n.cfg.Pool, n: uint64(n.estimate), widths: []byte{id.DigitBits}}
	others := 0
	for r := uint32(1); r < n.peers.end() && len(t.nodes) < maxSaved; r++ {
		p := n.peer(r)
		if p.h == nil || p.flags&(fForgotten|fLeft) != 0 || p.heardSec == 0 {
			continue
		}
		s := savedNode{h: p.h, srtt: p.rtt.Smoothed(), heard: int64(p.heardSec), part: partRemembered}
		switch {
		case p.flags&fLeaf != 0:
			s.part = partLeaf
		case p.flags&fTable != 0:
			s.part = partTable
		default:
			if others++; others > n.cfg.Remembered {
				continue
			}
		}
		t.nodes = append(t.nodes, s)
	}
	n.out = append(n.out, machine.Effect{Kind: machine.Save, Body: t.encode()})
}

// restore interns the nodes of a saved table, leaves first, and makes them
// contacts. It returns how many there were. A table that is damaged, of
// another version or of another pool is ignored: it only saves time.
func (n *Node) restore(b []byte) int {
	if len(b) == 0 {
		return 0
	}
	t, err := decodeSaved(b)
	if err != nil || t.pool != n.cfg.Pool {
		n.trace("pastry.badsave", id.GUID{}, id.GUID{}, int64(len(b)), "saved table ignored")
		return 0
	}
	count := 0
	for part := partLeaf; part <= partRemembered; part++ {
		for _, s := range t.nodes {
			if s.part != part || s.h.GUID == n.me {
				continue
			}
			if wall := n.wall / 1000; wall > 0 && machine.Duration(wall-s.heard)*machine.Second > n.cfg.RememberFor {
				continue
			}
			r := n.intern(s.h)
			if r == 0 {
				continue
			}
			count++
			p := n.peer(r)
			p.heardSec = seconds(s.heard)
			if s.srtt > 0 {
				p.rtt.Sample(s.srtt)
			}
			if len(n.join.contacts) < 4*maxContacts {
				p.pins++
				n.join.contacts = append(n.join.contacts, r)
			}
		}
	}
	n.everAdmit = n.everAdmit || count > 0 // a table with nodes in it: this node may have admitted and granted
	return count
}
