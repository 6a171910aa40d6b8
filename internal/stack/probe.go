package stack

import (
	"errors"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/kbr"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/wire"
)

// ErrNoAnswer ends a route probe whose root has not answered in time.
var ErrNoAnswer = errors.New("the root has not answered in time")

// Bounds of a route probe.
const (
	maxProbeHops  = 64
	maxProbes     = 256
	probeLifetime = 10 * machine.Second
)

// Hop is one node on the way of a route probe, as that node saw it.
type Hop struct {
	Node id.GUID
	Addr string           // first address of its handle, opaque
	Rule kbr.Rule         // how it chose the next hop; RuleRoot at the end
	RTT  machine.Duration // its smoothed round trip to the next hop, 0 if unknown
}

// ProbeCmd asks for the way to a key; the Reply brings a Route.
type ProbeCmd struct{ Key id.GUID }

// Route is a way through the overlay, from the origin to the root.
type Route struct {
	Hops []Hop
	Took machine.Duration // from sending to the root's answer
}

// probe is the application behind "atoll route": every node on the way adds
// itself in Forward, and the root sends the list straight back.
type probe struct {
	router  kbr.Router
	pending map[kbr.ReqID]pendingProbe
	timers  machine.Timers[kbr.ReqID]
	next    uint64
}

type pendingProbe struct {
	cmd  uint64
	sent machine.Time
}

var _ kbr.Upcalls = (*probe)(nil)

func newProbe(r kbr.Router) *probe {
	return &probe{router: r, pending: make(map[kbr.ReqID]pendingProbe)}
}

func (p *probe) command(now machine.Time, cmd uint64, c ProbeCmd, out []machine.Effect) []machine.Effect {
	if len(p.pending) >= maxProbes {
		return append(out, machine.Effect{Kind: machine.Reply, ID: cmd, Err: kbr.ErrBusy})
	}
	p.next++
	var req kbr.ReqID
	self := p.router.Self()
	var w wire.Writer
	w.U64(p.next)
	w.U32(self.Epoch)
	copy(req[:], w.B)
	copy(req[12:], self.GUID[:4])
	p.pending[req] = pendingProbe{cmd, now}
	p.timers.Set(req, now.Add(probeLifetime))
	return p.router.Route(now, kbr.Message{
		Key: c.Key, App: kbr.AppProbe, ReqID: req, Class: kbr.BestEffort,
		Origin: self, Deadline: probeLifetime, Body: appendHops(nil, nil),
	}, nil, out)
}

// Forward adds this node to the list.
func (p *probe) Forward(_ machine.Time, m *kbr.Message, next *id.Handle, out []machine.Effect) ([]machine.Effect, bool) {
	hops, err := readHops(m.Body)
	if err != nil || len(hops) >= maxProbeHops {
		return out, false
	}
	h := Hop{Node: p.router.Self().GUID, Rule: m.Rule}
	if addrs := p.router.Self().Addrs; len(addrs) > 0 {
		h.Addr = addrs[0]
	}
	if next != nil {
		h.RTT = p.router.RTT(next.GUID)
	} else {
		h.Rule = kbr.RuleRoot
	}
	m.Body = appendHops(hops, &h)
	return out, true
}

// Deliver sends the list to the origin.
func (p *probe) Deliver(_ machine.Time, m *kbr.Message, _ kbr.Ownership, out []machine.Effect) []machine.Effect {
	hops, err := readHops(m.Body)
	if err != nil || m.Origin == nil {
		return out
	}
	return append(out, machine.Effect{Kind: machine.Send, To: m.Origin, Msg: &ProbeAnswer{Req: m.ReqID, Hops: hops}})
}

// Update does nothing: a probe does not depend on the leaf set.
func (p *probe) Update(_ machine.Time, _ *id.Handle, _ bool, out []machine.Effect) []machine.Effect {
	return out
}

// Drop ends a probe of this node that could not go on.
func (p *probe) Drop(_ machine.Time, m *kbr.Message, err error, out []machine.Effect) []machine.Effect {
	return p.finish(m.ReqID, nil, err, out)
}

func (p *probe) answer(now machine.Time, a *ProbeAnswer, out []machine.Effect) []machine.Effect {
	pp, ok := p.pending[a.Req]
	if !ok {
		return out
	}
	return p.finish(a.Req, &Route{Hops: a.Hops, Took: now.Sub(pp.sent)}, nil, out)
}

func (p *probe) finish(req kbr.ReqID, r *Route, err error, out []machine.Effect) []machine.Effect {
	pp, ok := p.pending[req]
	if !ok {
		return out
	}
	delete(p.pending, req)
	p.timers.Stop(req)
	e := machine.Effect{Kind: machine.Reply, ID: pp.cmd, Err: err}
	if r != nil {
		e.Body = *r
	}
	return append(out, e)
}

func (p *probe) tick(now machine.Time, out []machine.Effect) []machine.Effect {
	for {
		req, ok := p.timers.Pop(now)
		if !ok {
			return out
		}
		out = p.finish(req, nil, ErrNoAnswer, out)
	}
}

// KindProbeAnswer is the wire kind of ProbeAnswer.
const KindProbeAnswer = 104

// ProbeAnswer brings the way of a probe back to its origin:
// request 16 B · hops.
type ProbeAnswer struct {
	Req  kbr.ReqID
	Hops []Hop
}

func (a *ProbeAnswer) Kind() uint8 { return KindProbeAnswer }

func (a *ProbeAnswer) AppendBody(w *wire.Writer) {
	w.Fixed(a.Req[:])
	w.Fixed(appendHops(a.Hops, nil))
}

// appendHops encodes a list with one more at its end: count u16, then per hop
// GUID 32 B · address (u8 length) · rule u8 · RTT µs u64.
func appendHops(hops []Hop, more *Hop) []byte {
	n := len(hops)
	if more != nil {
		n++
	}
	var w wire.Writer
	w.Count(n)
	for i := range hops {
		hops[i].append(&w)
	}
	if more != nil {
		more.append(&w)
	}
	return w.B
}

func (h *Hop) append(w *wire.Writer) {
	w.GUID(h.Node)
	w.Bytes8([]byte(h.Addr))
	w.U8(uint8(h.Rule))
	w.U64(uint64(h.RTT))
}

func readHops(b []byte) ([]Hop, error) {
	r := wire.NewReader(b)
	hops := scanHops(r)
	return hops, r.Close()
}

func scanHops(r *wire.Reader) []Hop {
	hops := make([]Hop, r.Count(maxProbeHops, 32+1+1+8))
	for i := range hops {
		h := &hops[i]
		h.Node = r.GUID()
		h.Addr = string(r.Bytes8(id.MaxAddrLen))
		h.Rule = kbr.Rule(r.U8())
		h.RTT = machine.Duration(r.U64())
		if h.Rule > kbr.RuleRare || h.RTT < 0 {
			r.Fail(wire.ErrValue)
		}
	}
	return hops
}

func decodeProbeAnswer(r *wire.Reader) *ProbeAnswer {
	a := &ProbeAnswer{}
	r.Into(a.Req[:])
	a.Hops = scanHops(r)
	return a
}
