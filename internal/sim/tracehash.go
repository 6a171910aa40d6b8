package sim

import (
	"encoding/binary"
	"encoding/hex"

	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/trace"
)

func (e *Engine) note(src, dst Ref, kind uint8) {
	b := e.hashBuf
	b = binary.LittleEndian.AppendUint64(b, uint64(e.now))
	b = binary.LittleEndian.AppendUint32(b, uint32(dst))
	b = binary.LittleEndian.AppendUint32(b, uint32(src))
	e.flush(append(b, kind))
}

func (e *Engine) noteTrace(n Ref, ev *trace.Event) {
	b := e.hashBuf
	b = binary.LittleEndian.AppendUint64(b, uint64(e.now))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = append(b, ev.Kind...)
	b = append(b, 0)
	b = append(b, ev.Peer[:]...)
	b = append(b, ev.Key[:]...)
	e.flush(binary.LittleEndian.AppendUint64(b, uint64(ev.N)))
}

func (e *Engine) noteReply(n Ref, ef *machine.Effect) {
	b := e.hashBuf
	b = binary.LittleEndian.AppendUint64(b, uint64(e.now))
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = binary.LittleEndian.AppendUint64(b, ef.ID)
	if ef.Err != nil {
		b = append(b, ef.Err.Error()...)
	}
	e.flush(append(b, 0xff))
}

func (e *Engine) flush(b []byte) {
	if len(b) >= 1<<14 {
		_, _ = e.hash.Write(b) // a hash never fails
		b = b[:0]
	}
	e.hashBuf = b
}

// Hash is the trace hash so far: BLAKE3 over every delivery, trace and reply,
// in order. Two runs with one hash did the same.
func (e *Engine) Hash() string {
	_, _ = e.hash.Write(e.hashBuf)
	e.hashBuf = e.hashBuf[:0]
	return hex.EncodeToString(e.hash.Sum(nil))
}
