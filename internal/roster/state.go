package roster

import (
	"fmt"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/wire"
)

// Encode is the whole set, for the host to keep: version u8 = 1 · count u32 ·
// entries, each u16+. The same set gives the same bytes.
func (r *Roster) Encode() []byte {
	var w wire.Writer
	w.U8(1)
	all := r.sorted(func(*held) bool { return true })
	w.U32(uint32(len(all)))
	for _, x := range all {
		w.Bytes16(x.bytes)
	}
	return w.B
}

// Restore loads what Encode gave. Every signature is checked again, so a changed
// file cannot bring in members; entries that fail are left out and the first
// error is returned.
func (r *Roster) Restore(b []byte) error {
	entries, err := split(b)
	if err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	if _, err := r.Load(entries); err != nil {
		return fmt.Errorf("roster: %w", err)
	}
	return nil
}

func split(b []byte) ([][]byte, error) {
	rd := wire.NewReader(b)
	if rd.U8() != 1 {
		rd.Fail(wire.ErrVersion)
	}
	n := int(rd.U32())
	if n > rd.Len()/2 {
		rd.Fail(wire.ErrShort)
		n = 0
	}
	entries := make([][]byte, 0, n)
	for i := 0; i < n && rd.Err() == nil; i++ {
		entries = append(entries, rd.Bytes16(MaxEntry))
	}
	return entries, rd.Close()
}

// Word is the entry by which a node told last where it is and under which boot
// epoch; nil if it has told nothing. The slice must not be changed.
func (r *Roster) Word(g id.GUID) []byte {
	if n := r.nodes[g]; n != nil && n.state != nil {
		return n.state.bytes
	}
	return nil
}
