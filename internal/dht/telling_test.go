package dht

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/machine/machinetest"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/trace"
	"atoll.example/atoll/internal/wire/wiretest"
)

// telling writes down what the nodes of a world say and do, a line each:
//
//	seconds  A → B   message, with what it carries
//	seconds  A ▪     what A has on its disk now, synced
//	seconds  A ✓ ✗   the answer to a command given to A
//	seconds  A !     what A notices
//
// Nodes are letters by distance from one key, so that A, B and C are its set.
// Left out are lookups, and what neighbours compare all the time: the trees
// always, the lists of keys unless lists is set.
type telling struct {
	w     *world
	lines []string
	nodes map[id.GUID]string
	keys  map[id.GUID]string
	start machine.Time
	lists bool
	loses func(machinetest.Flight) bool // what the network loses, beside messages to the dead
}

// tell starts a telling about key, called name.
func tell(w *world, key id.GUID, name string) *telling {
	s := &telling{
		w: w, nodes: make(map[id.GUID]string), keys: map[id.GUID]string{key: name}, start: w.net.Now,
	}
	near := slices.Clone(w.nodes)
	slices.SortFunc(near, func(a, b *tnodeT) int { return id.CmpDist(key, a.h.GUID, b.h.GUID) })
	for _, x := range near {
		s.join(x)
	}
	w.net.Drop = s.send
	w.net.Other = s.other
	return s
}

// join gives x the next letter.
func (s *telling) join(x *tnodeT) { s.nodes[x.h.GUID] = string(rune('A' + len(s.nodes))) }

// node returns the node with a letter.
func (s *telling) node(letter string) *tnodeT {
	for g, l := range s.nodes {
		if l == letter {
			return s.w.by[g]
		}
	}
	s.w.t.Fatalf("no node %s", letter)
	return nil
}

// chapter begins a part of the story.
func (s *telling) chapter(format string, args ...any) {
	s.lines = append(s.lines, "", fmt.Sprintf(format, args...))
}

func (s *telling) line(who, format string, args ...any) {
	s.lines = append(s.lines, strings.TrimRight(fmt.Sprintf("%8.3f  %-7s %s",
		float64(s.w.net.Now-s.start)/1e6, who, fmt.Sprintf(format, args...)), " "))
}

// end compares the story with testdata/NAME.txt.
func (s *telling) end(name, title string) {
	s.w.t.Helper()
	t, ok := s.w.t.(*testing.T)
	if !ok {
		s.w.t.Fatal("a story is told in a test")
	}
	wiretest.Text(t, filepath.Join("testdata", name+".txt"), title+"\n"+strings.Join(s.lines, "\n")+"\n")
}

func (s *telling) send(f machinetest.Flight) bool {
	lost := s.loses != nil && s.loses(f)
	if text := s.text(f); text != "" {
		if lost || !s.w.net.Alive(f.To.GUID) {
			text += "   (lost)"
		}
		s.line(s.nodes[f.From.GUID]+" → "+s.nodes[f.To.GUID], "%s", text)
	}
	return lost
}

func (s *telling) other(g id.GUID, e machine.Effect) (machine.Event, bool) {
	who := s.nodes[g]
	switch e.Kind {
	case machine.Store:
		var what []string
		for _, o := range e.Body.(store.Batch).Ops {
			if k := s.record(o); k != "" && !slices.Contains(what, k) {
				what = append(what, k)
			}
		}
		if what != nil {
			s.line(who+" ▪", "%s", strings.Join(what, ", "))
		}
	case machine.Reply:
		s.line(who+s.outcome(e), "%s", s.answer(e))
	case machine.Trace:
		ev := e.Body.(trace.Event)
		if text := map[string]string{
			"dht.standin": "takes a stand-in: ", "dht.diverted": "diverts its copy to ", "dht.equivocation": "sees two values of one seq",
		}[ev.Kind]; text != "" {
			s.line(who+" !", "%s%s", text, s.nodes[ev.Peer])
		}
	}
	return s.w.other(g, e)
}

func (s *telling) record(o store.Op) string {
	name := map[store.Family]string{
		store.Block: "the bytes", store.Claim: "claim", store.Tombstone: "tombstone",
		store.Signed: "record", store.Holder: "pointer",
	}[o.Key.Family]
	key, ok := s.keys[o.Key.GUID]
	if name == "" || !ok {
		return ""
	}
	switch o.Key.Family {
	case store.Claim, store.Tombstone:
		name += fmt.Sprintf(" %d", o.Key.Sub[32])
	case store.Holder:
		name += " to " + s.nodes[id.GUID([]byte(o.Key.Sub))]
	case store.Signed:
		if !o.Delete {
			if v, err := DecodeSigned(o.Value); err == nil {
				name = seqOf(&v)
			}
		}
	}
	if len(s.keys) > 1 {
		name += " of " + key
	}
	if o.Delete {
		return "no more " + name
	}
	return name
}

func (s *telling) outcome(e machine.Effect) string {
	if e.Err != nil {
		return " ✗"
	}
	return " ✓"
}

func (s *telling) answer(e machine.Effect) string {
	var r *Refusal
	if errors.As(e.Err, &r) {
		text := r.Code
		if len(r.Nodes) > 0 {
			text += ", silent: " + s.letters(r.Nodes)
		}
		return text
	}
	switch v := e.Body.(type) {
	case PutDone:
		return "put: " + s.receipts(v.Receipts)
	case RemoveDone:
		return "removed: " + s.receipts(v.Receipts) + when(v.KeptByOthers, "; another claim keeps the bytes")
	case []byte:
		return fmt.Sprintf("got %d bytes", len(v))
	case *Signed:
		return "read " + seqOf(v)
	case []Presence:
		var all []string
		for _, p := range v {
			all = append(all, fmt.Sprintf("%d copies", p.Copies))
		}
		return strings.Join(all, ", ")
	}
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%T", e.Body)
}

func (s *telling) letters(gs []id.GUID) string {
	var ls []string
	for _, g := range gs {
		ls = append(ls, s.nodes[g])
	}
	slices.Sort(ls)
	return strings.Join(ls, " ")
}

func (s *telling) handles(hs []*id.Handle) string {
	var gs []id.GUID
	for _, h := range hs {
		gs = append(gs, h.GUID)
	}
	return s.letters(gs)
}

func (s *telling) receipts(rs []Receipt) string {
	var all []string
	for _, r := range rs {
		all = append(all, s.nodes[r.Node]+map[Role]string{RoleStandIn: " (stand-in)", RoleDiverted: " (diverted)"}[r.Role])
	}
	slices.Sort(all)
	return "receipts of " + strings.Join(all, ", ")
}

func seqOf(v *Signed) string { return fmt.Sprintf("seq %d %q", v.Seq, v.Value) }

func when(yes bool, text string) string {
	if yes {
		return text
	}
	return ""
}

// carried lists what comes with a copy or an offer.
func carried(block []byte, certs []StoreCert, tombs []Remove, signed []Signed) string {
	var all []string
	if len(block) > 0 {
		all = append(all, "the bytes")
	}
	for i := range certs {
		all = append(all, fmt.Sprintf("claim %d", certs[i].Claim[0]))
	}
	for i := range tombs {
		all = append(all, fmt.Sprintf("tombstone %d", tombs[i].Claim[0]))
	}
	for i := range signed {
		all = append(all, seqOf(&signed[i]))
	}
	return strings.Join(all, ", ")
}

var presenceNames = [...]string{"absent", "have", "unsynced", "elsewhere", "outside"}

// text tells a message; empty: it does not belong to the story.
func (s *telling) text(f machinetest.Flight) string {
	of := func(g id.GUID) string {
		if len(s.keys) == 1 {
			return ""
		}
		return " of " + s.keys[g]
	}
	switch m := f.Msg.(type) {
	case *locateMsg, *locatedMsg, *syncTreeMsg, *syncTreeAckMsg, *surveyMsg, *surveyAckMsg, *workingMsg:
		return ""
	case *putMsg:
		return "Put " + carried(m.block, []StoreCert{m.cert}, nil, nil) + of(m.cert.GUID)
	case *putAckMsg:
		if m.want {
			return "PutAck: send the bytes"
		}
		return "PutAck: " + s.receipts(m.receipts)
	case *copyMsg:
		return "Copy" + map[Role]string{RoleReplica: "", RoleDiverted: " as diverted", RoleStandIn: " as stand-in"}[m.role] + ": " +
			carried(m.block, m.certs, m.tombs, nil) + of(m.guid)
	case *copyAckMsg:
		return "CopyAck" + when(m.want, ": send the bytes")
	case *getMsg:
		return "Get" + of(m.guid)
	case *blockMsg:
		return "Block: " + presenceNames[m.state] + when(len(m.others) > 0, ", see "+s.handles(m.others))
	case *headMsg:
		return "Head"
	case *headAckMsg:
		var all []string
		for _, h := range m.heads {
			all = append(all, presenceNames[h.state])
		}
		return "HeadAck: " + strings.Join(all, ", ")
	case *removeMsg:
		return fmt.Sprintf("Remove claim %d", m.rec.Claim[0]) + of(m.rec.GUID)
	case *removeAckMsg:
		return "RemoveAck: " + s.receipts(m.receipts) + when(m.kept, "; bytes kept")
	case *syncKeysMsg:
		return when(s.lists && len(m.items) > 0, "SyncKeys: "+s.items(m.items))
	case *syncKeysAckMsg:
		return when(s.lists && len(m.items) > 0, "SyncKeysAck: "+s.items(m.items))
	case *wantMsg:
		return "Want " + when(m.bytes, "the bytes") + when(!m.bytes, "records")
	case *offerMsg:
		text := "Offer:"
		for _, o := range m.items {
			text += " " + carried(nil, o.certs, o.tombs, o.signed) + of(o.guid)
		}
		return text
	case *refuseMsg:
		return "Refuse: " + m.code.String()
	case *putSignedMsg:
		return "PutSigned " + seqOf(&m.rec) + when(m.hasCAS, fmt.Sprintf(" if seq is %d", m.cas)) +
			[...]string{"", "", " (the root was silent)", " as a vote", " to keep"}[m.stage]
	case *putSignedAckMsg:
		return fmt.Sprintf("PutSignedAck seq %d: ", m.seq) + s.receipts(m.receipts)
	case *getSignedMsg:
		return "GetSigned"
	case *signedIsMsg:
		text := "SignedIs " + presenceNames[m.state]
		for i := range m.recs {
			text += ", " + seqOf(&m.recs[i])
		}
		return text + when(!m.quorum, ", counts in no quorum")
	case *pointerMsg:
		return "Pointer" + when(m.drop, ": no more") + ": it is at " + s.nodes[m.holder.GUID]
	}
	return strings.TrimSuffix(fmt.Sprintf("%T", f.Msg)[len("*dht."):], "Msg")
}

// items lists what a node says of keys.
func (s *telling) items(all []item) string {
	var texts []string
	for _, it := range all {
		name := s.keys[it.guid]
		var has []string
		for bit, word := range map[uint8]string{itemHave: "have", itemTombs: "tombstones", itemClaims: "claims", itemSigned: "signed"} {
			if it.flags&bit != 0 {
				has = append(has, word)
			}
		}
		if has == nil {
			has = []string{"by name"}
		}
		slices.Sort(has)
		texts = append(texts, name+" ("+strings.Join(has, ", ")+")")
	}
	return strings.Join(texts, ", ")
}
