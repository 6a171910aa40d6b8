package pastry

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

func encode(m machine.Message) []byte {
	var w wire.Writer
	machine.AppendMessage(&w, m)
	return w.B
}

// samples has one of each kind, with every list and option filled.
func samples() []machine.Message {
	h := &id.Handle{GUID: guidN(1), Key: [32]byte{1}, Epoch: 7, Addrs: []string{"/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/udp/4001/quic-v1"}}
	k := handle(guidN(2), 3)
	refs := []Ref{{1, 2}, {1<<64 - 1, 1<<32 - 1}}
	beat := BeatBody{Nonce: 9, Echo: 8, Hold: 7, Grant: 15 * machine.Second, Seq: 6, Back: 5, Flags: beatFlags, Trt: 600}
	rows := []Row{{0, []*id.Handle{h}}, {3, []*id.Handle{k, h}}}
	return []machine.Message{
		&Hop{ID: 5, M: kbr.Message{
			Key: guidN(3), App: 1, ReqID: kbr.ReqID{1}, Class: kbr.Owned, Origin: h, Deadline: 3 * machine.Second,
			Hops: 4, Flags: kbr.FlagLeaf, BestDist: guidN(4), Body: []byte("body"),
		}},
		&Hop{M: kbr.Message{Body: []byte{}}},
		&HopAck{IDs: []uint32{1, 2, 3}, Onward: []uint32{4}, Busy: true},
		&Probe{Nonce: 1, Coord: []byte{1, 2}},
		&ProbeAck{Nonce: 1, Held: 2, Ready: true, Coord: []byte{1}},
		&PingReq{Target: h, Nonce: 3},
		&PingRep{Nonce: 3, OK: true},
		&Beat{beat},
		&BeatAck{BeatBody{Hold: noEcho}},
		&Join{X: h, Nonce: 4, Look: true, Passes: 2, Rows: rows},
		&AdmitReq{X: h, Lock: 5},
		&AdmitRep{Lock: 5, OK: true, Left: refs, Right: refs},
		&JoinReply{Nonce: 4, Lock: 5, S: k, L: []*id.Handle{h, k}, Rows: rows},
		&JoinReply{L: []*id.Handle{}, Rows: []Row{}},
		&JoinBusy{Nonce: 4, Retry: 50 * machine.Millisecond, Ready: true, Left: refs, Right: refs},
		&Joined{Lock: 5, BeatBody: beat},
		&JoinedAck{Lock: 5, OK: true, BeatBody: beat},
		&LSProbe{Reply: true, Ready: true, Left: refs, Right: refs, Failed: refs},
		&RowReq{P: 63},
		&RowRep{P: 2, Entries: []RowEntry{{refs[0], []byte{1}}, {refs[1], []byte{}}}},
		&HandlesReq{Refs: refs},
		&Handles{Handles: []*id.Handle{h, k}},
		&Events{Events: []MemberEvent{{refs[0], true, 3}}},
		&Leave{Left: refs, Right: refs},
		&Rtt{RTT: 1234},
	}
}

func TestEveryKindRoundTrips(t *testing.T) {
	seen := map[uint8]bool{}
	for _, m := range samples() {
		b := encode(m)
		got, err := Decode(b)
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if !bytes.Equal(encode(got), b) {
			t.Errorf("%T changes on its way", m)
		}
		seen[m.Kind()] = true
		// Nothing shorter or longer passes.
		for i := range b {
			if _, err := Decode(b[:i]); !errors.Is(err, wire.ErrMalformed) {
				t.Errorf("%T cut to %d bytes: %v", m, i, err)
			}
		}
		if _, err := Decode(append(slices.Clone(b), 0)); !errors.Is(err, wire.ErrTrailing) {
			t.Errorf("%T with a trailing byte: %v", m, err)
		}
	}
	for k := kindHop; k <= kindRtt; k++ {
		if !seen[k] || !Owns(k) {
			t.Errorf("kind %d is not sampled or not owned", k)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	change := func(m machine.Message, at int, v byte) []byte {
		b := encode(m)
		b[at] = v
		return b
	}
	long := func(n int) (w wire.Writer) {
		w.U8(kindHandlesReq)
		w.U8(machine.Version)
		w.Count(n)
		for range n {
			appendRef(&w, Ref{})
		}
		return w
	}
	tooMany, most := long(maxHandles+1), long(maxHandles)
	hop := encode(&Hop{})
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"nothing":         {nil, wire.ErrShort},
		"kind 0":          {[]byte{0, 1}, wire.ErrVersion},
		"kind 24":         {[]byte{24, 1}, wire.ErrVersion},
		"version 2":       {change(&Probe{}, 1, 2), wire.ErrVersion},
		"class 3":         {change(&Hop{}, 2+4+32+2+16, 3), wire.ErrValue},
		"reverse path":    {change(&Hop{}, 2+4+32+2+16+1, 1), wire.ErrValue},
		"bool 2":          {change(&Hop{}, 2+4+32+2+16+2, 2), wire.ErrValue},
		"level":           {change(&Hop{}, len(hop)-6, 1), wire.ErrValue},
		"safe flag":       {change(&Hop{}, len(hop)-5, kbr.FlagSafe), wire.ErrValue},
		"row 64":          {[]byte{kindRowReq, 1, 64}, wire.ErrBound},
		"too many refs":   {tooMany.B, wire.ErrBound},
		"beat flag":       {change(&Beat{}, 2+8+8+4+4+4+4, 0x80), wire.ErrValue},
		"handle, no addr": {encode(&PingReq{Target: &id.Handle{}}), wire.ErrBound},
		"rows unordered":  {encode(&Join{X: handle(guidN(1), 1), Rows: []Row{{1, nil}, {1, nil}}}), wire.ErrValue},
	} {
		if _, err := Decode(c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := Decode(most.B); err != nil {
		t.Errorf("as many refs as allowed: %v", err)
	}
}

func TestRoutedMessageRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := kbr.Message{
			App:      rapid.Uint16().Draw(t, "app"),
			Class:    kbr.Class(rapid.IntRange(0, 2).Draw(t, "class")),
			Deadline: machine.Duration(rapid.Uint32().Draw(t, "ms")) * machine.Millisecond,
			Hops:     rapid.Uint8().Draw(t, "hops"),
			Body:     rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body"),
		}
		copy(m.Key[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		copy(m.ReqID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		if rapid.Bool().Draw(t, "leaf") {
			m.Flags, m.BestDist = kbr.FlagLeaf, guidN(1)
		}
		if rapid.Bool().Draw(t, "origin") {
			m.Origin = handle(guidN(2), 1)
		}
		var w wire.Writer
		appendMessage(&w, &m)
		r := wire.NewReader(w.B)
		got := readMessage(r)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		var again wire.Writer
		appendMessage(&again, &got)
		if !bytes.Equal(w.B, again.B) || got.Key != m.Key || got.ReqID != m.ReqID || got.Deadline != m.Deadline || !bytes.Equal(got.Body, m.Body) {
			t.Fatalf("%+v became %+v", m, got)
		}
	})
}

func FuzzDecode(f *testing.F) {
	for _, m := range samples() {
		f.Add(encode(m))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, wire.ErrMalformed) {
				t.Fatalf("error %v does not wrap ErrMalformed", err)
			}
			return
		}
		if again := encode(m); !bytes.Equal(again, b) {
			t.Fatalf("%T: %x encodes to %x", m, b, again)
		}
	})
}

func FuzzDecodeSaved(f *testing.F) {
	t := savedTable{pool: [32]byte{1}, n: 9, widths: []byte{4}, nodes: []savedNode{{handle(guidN(1), 1), 5, 6, partTable}}}
	f.Add(t.encode())
	f.Add([]byte("ATOV"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeSaved(b)
		if err == nil && !bytes.Equal(s.encode(), b) {
			t.Fatalf("%x encodes to %x", b, s.encode())
		}
		// The checksum stops most inputs: put a right one on whatever came.
		if len(b) >= 32 {
			r := seal(slices.Clone(b[:len(b)-32]))
			if s, err := decodeSaved(r); err == nil && !bytes.Equal(s.encode(), r) {
				t.Fatalf("%x encodes to %x", r, s.encode())
			}
		}
	})
}

// TestNoSave: who wants no tables gets none, and nothing else changes.
func TestNoSave(t *testing.T) {
	run := func(no bool) *pool {
		cfg := LAN()
		cfg.NoSave = no
		p := newPool(t, cfg)
		first := p.start(handle(guidN(0), 1), nil)
		p.start(handle(guidN(1), 1), first.Self())
		p.net.Run(3 * machine.Minute)
		return p
	}
	with, without := run(false), run(true)
	if len(with.saved) != 2 || len(without.saved) != 0 {
		t.Errorf("%d and %d nodes have saved", len(with.saved), len(without.saved))
	}
	if len(with.log) < 3 || !slices.Equal(with.log, without.log) {
		t.Errorf("histories differ:\n%s\n%s", strings.Join(with.log, "\n"), strings.Join(without.log, "\n"))
	}
}

func TestDamagedSaveIsIgnored(t *testing.T) {
	p := newPool(t, LAN())
	p.net.Now = machine.Time(machine.Hour) // a wall clock of 0 is none
	p.grow(0, 4)
	p.net.Run(90 * machine.Second)
	g := p.order[1]
	saved := p.saved[g]
	if s, err := decodeSaved(saved); err != nil || len(s.nodes) != 3 {
		t.Fatalf("saved table: %v", err)
	}
	for i := 0; i < len(saved); i += 7 {
		bad := slices.Clone(saved)
		bad[i] ^= 1
		if _, err := decodeSaved(bad); err == nil {
			t.Fatalf("byte %d flipped: accepted", i)
		}
	}
	other := LAN()
	other.Pool = [32]byte{9}
	n := New(&other, handle(guidN(50), 1), 1)
	n.Start(0, nil, saved, false, nil)
	if n.peers.index.Len() != 0 {
		t.Fatal("a table of another pool was taken")
	}
}
