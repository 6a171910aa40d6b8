package roster

import (
	"errors"
	"math/rand/v2"
	"slices"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
)

// Config of the machine. The zero value of a field stands for its default.
type Config struct {
	Self id.GUID
	// Peers returns the neighbours to exchange with, nearest first. Nil: any
	// members. The slice is the caller's.
	Peers func() []*id.Handle
	// Seed of the machine's random stream.
	Seed uint64
	// Period between comparisons with a random neighbour, ± 20 %. Default
	// 1 min (20-dht §7).
	Period machine.Duration
	// PushDelay collects news before they are passed on. Default 20 ms, ours:
	// well below what a person notices, above the spread of one batch.
	PushDelay machine.Duration
}

// Bounds of the exchange, ours.
const (
	maxFresh  = 256 // news held for passing on; more: compare instead
	pushTo    = 16  // neighbours that get news
	pushFar   = 3   // other members that get news, so that they cross a big ring in a few steps
	startWith = 3   // neighbours compared with at the start
	maxReply  = 8   // messages in answer to one Have
	maxMet    = 1024
	metEvery  = 2 * machine.Second        // per peer
	again     = 100 * machine.Millisecond // before comparing once more with a peer that had news
)

type timerKey struct {
	what byte // 'p' periodic, 'f' news to pass on, 'a' compare again with peer
	peer id.GUID
}

type news struct {
	*held
	from id.GUID
}

// exchange is the machine's own state.
type exchange struct {
	cfg     Config
	rng     *rand.Rand
	timers  machine.Timers[timerKey]
	lastNow machine.Time
	started machine.Time // Never: not yet
	freshly []news
	flood   bool // more news than maxFresh
	met     map[id.GUID]machine.Time
	asked   map[id.GUID]*id.Handle // of 'a' timers
	refused int
}

func (x *exchange) init(cfg Config) {
	if cfg.Period == 0 {
		cfg.Period = machine.Minute
	}
	if cfg.PushDelay == 0 {
		cfg.PushDelay = 20 * machine.Millisecond
	}
	x.cfg = cfg
	x.rng = machine.NewRand(cfg.Seed, cfg.Self, "roster")
	x.met = make(map[id.GUID]machine.Time)
	x.asked = make(map[id.GUID]*id.Handle)
}

// Refused counts entries and messages of peers that no honest node sends.
func (r *Roster) Refused() int { return r.refused }

// Start begins the exchange.
func (r *Roster) Start(now machine.Time, out []machine.Effect) []machine.Effect {
	r.lastNow, r.started = now, now
	r.timers.Set(timerKey{what: 'p'}, now.Add(machine.Jitter(r.rng, r.cfg.Period, 200_000)))
	for _, h := range r.targets(startWith, 0) {
		out = r.compare(h, out)
	}
	return out
}

// Met compares rosters with a node that the host has just met; more often than
// every two seconds it does nothing.
func (r *Roster) Met(now machine.Time, h *id.Handle, out []machine.Effect) []machine.Effect {
	r.lastNow = now
	if t, ok := r.met[h.GUID]; ok && now.Sub(t) < metEvery || h.GUID == r.cfg.Self {
		return out
	}
	if len(r.met) >= maxMet {
		clear(r.met)
	}
	r.met[h.GUID] = now
	return r.compare(h, out)
}

// Wake implements machine.Machine.
func (r *Roster) Wake() machine.Time {
	if len(r.events) > 0 {
		return r.lastNow
	}
	return r.timers.Next()
}

// Step implements machine.Machine.
func (r *Roster) Step(now machine.Time, ev machine.Event, out []machine.Effect) []machine.Effect {
	r.lastNow = now
	switch ev.Kind {
	case machine.Tick:
		for {
			k, ok := r.timers.Pop(now)
			if !ok {
				break
			}
			out = r.expired(now, k, out)
		}
	case machine.Receive:
		out = r.receive(now, ev.From, ev.Msg, out)
	}
	for _, e := range r.events {
		out = append(out, machine.Effect{Kind: machine.Trace, Body: e})
	}
	r.events = r.events[:0]
	return out
}

func (r *Roster) expired(now machine.Time, k timerKey, out []machine.Effect) []machine.Effect {
	switch k.what {
	case 'p':
		r.timers.Set(k, now.Add(machine.Jitter(r.rng, r.cfg.Period, 200_000)))
		if all := r.peers(); len(all) > 0 {
			out = r.compare(all[r.rng.IntN(len(all))], out)
		}
	case 'f':
		out = r.push(out)
	case 'a':
		if h := r.asked[k.peer]; h != nil {
			delete(r.asked, k.peer)
			out = r.compare(h, out)
		}
	}
	return out
}

func (r *Roster) receive(now machine.Time, from *id.Handle, m machine.Message, out []machine.Effect) []machine.Effect {
	switch m := m.(type) {
	case *Compare:
		if m.Sum == r.SetDigest() {
			return out
		}
		b := &Buckets{}
		for i := range b.Sums {
			b.Sums[i] = r.sums.sum(i)
		}
		return send(from, b, out)
	case *Buckets:
		h := &Have{}
		for i := range m.Sums {
			if m.Sums[i] != r.sums.sum(i) {
				h.set(i)
			}
		}
		return r.have(from, h, out)
	case *Have:
		return r.answer(from, m, out)
	case *Entries:
		return r.entries(now, from, m, out)
	}
	return out
}

// have fills in the tags of h and sends it. Buckets that do not fit are left for
// the next comparison.
func (r *Roster) have(to *id.Handle, h *Have, out []machine.Effect) []machine.Effect {
	want := h.Buckets
	h.Buckets = [numBuckets / 8]byte{}
	some := false
	for i := range numBuckets {
		if want[i/8]>>(i%8)&1 == 1 && len(h.Tags)+len(r.sums.tags[i]) <= maxTags {
			h.set(i)
			h.Tags = append(h.Tags, r.sums.tags[i]...)
			some = true
		}
	}
	if !some {
		return out
	}
	return send(to, h, out)
}

// answer sends what the other lacks, and asks for what it has more.
func (r *Roster) answer(to *id.Handle, h *Have, out []machine.Effect) []machine.Effect {
	theirs := make(map[Tag]bool, len(h.Tags))
	lack := false
	for _, t := range h.Tags {
		theirs[t] = true
		lack = lack || r.byTag[t] == nil
	}
	var give []*held
	for i := range numBuckets {
		if !h.has(i) {
			continue
		}
		for _, t := range r.sums.tags[i] {
			if !theirs[t] {
				give = append(give, r.byTag[t])
			}
		}
	}
	sortHeld(give)
	batches := pack(give, false)
	for _, b := range batches[:min(len(batches), maxReply)] {
		out = send(to, b, out)
	}
	if lack && !h.Answer {
		out = r.have(to, &Have{Answer: true, Buckets: h.Buckets}, out)
	}
	return out
}

func (r *Roster) entries(now machine.Time, from *id.Handle, m *Entries, out []machine.Effect) []machine.Effect {
	changes, err := r.addAll(m.Entries, from.GUID)
	switch {
	case err == nil:
	case errors.Is(err, ErrUnknown) || errors.Is(err, ErrFull) || errors.Is(err, ident.ErrRevoked):
		// The other does not know yet what we do, or came to its bound later.
		r.tell("roster.ignored", from.GUID, err.Error())
	default:
		r.refused++
		r.tell("roster.refused", from.GUID, err.Error())
	}
	if changes == 0 {
		return out
	}
	r.pushSoon(now)
	if !m.Push && len(r.asked) < maxMet {
		// There may be more. This ends, for each round has added something.
		r.asked[from.GUID] = from
		r.timers.Set(timerKey{'a', from.GUID}, now.Add(again))
	}
	return out
}

// fresh notes an entry for passing on.
func (r *Roster) fresh(x *held, from id.GUID) {
	if len(r.freshly) >= maxFresh {
		r.flood = true
		return
	}
	r.freshly = append(r.freshly, news{x, from})
}

func (r *Roster) pushSoon(now machine.Time) {
	k := timerKey{what: 'f'}
	if r.timers.When(k) == machine.Never {
		r.timers.Set(k, now.Add(r.cfg.PushDelay))
	}
}

// push passes news on to the neighbours and a few far members, except to whom
// they came from.
func (r *Roster) push(out []machine.Effect) []machine.Effect {
	fresh, flood := r.freshly, r.flood
	r.freshly, r.flood = nil, false
	for _, h := range r.targets(pushTo, pushFar) {
		if flood {
			out = r.compare(h, out)
			continue
		}
		var give []*held
		for _, n := range fresh {
			if n.from != h.GUID && r.byTag[n.tag] == n.held {
				give = append(give, n.held)
			}
		}
		sortHeld(give)
		for _, b := range pack(give, true) {
			out = send(h, b, out)
		}
	}
	return out
}

// peers are the neighbours, or all members if the host names none.
func (r *Roster) peers() []*id.Handle {
	var all []*id.Handle
	if r.cfg.Peers != nil {
		all = r.cfg.Peers()
	}
	if len(all) == 0 {
		all = r.members()
	}
	return slices.DeleteFunc(all, func(h *id.Handle) bool { return h.GUID == r.cfg.Self || r.Revoked(h.GUID) })
}

// members are the handles of the counted members.
func (r *Roster) members() []*id.Handle {
	counted := r.now().counted
	all := make([]*id.Handle, 0, len(counted))
	for _, g := range counted {
		if h := r.Handle(g); h != nil && g != r.cfg.Self {
			all = append(all, h)
		}
	}
	return all
}

// targets are up to near neighbours and up to far members drawn by lot.
func (r *Roster) targets(near, far int) []*id.Handle {
	to := r.peers()
	to = to[:min(len(to), near)]
	if far == 0 {
		return to
	}
	all := r.members()
	for range far {
		if len(all) == 0 {
			break
		}
		h := all[r.rng.IntN(len(all))]
		if !slices.ContainsFunc(to, func(x *id.Handle) bool { return x.GUID == h.GUID }) {
			to = append(to, h)
		}
	}
	return to
}

func (r *Roster) compare(to *id.Handle, out []machine.Effect) []machine.Effect {
	return send(to, &Compare{Sum: r.SetDigest(), Count: uint32(len(r.byTag))}, out)
}

func send(to *id.Handle, m machine.Message, out []machine.Effect) []machine.Effect {
	return append(out, machine.Effect{Kind: machine.Send, To: to, Msg: m})
}

// pack fills messages with entries, in order.
func pack(give []*held, push bool) []*Entries {
	var all []*Entries
	room := 0
	for _, x := range give {
		if n := len(x.bytes) + 2; len(all) == 0 || n > room {
			all = append(all, &Entries{Push: push})
			room = maxBatch
		}
		last := all[len(all)-1]
		last.Entries = append(last.Entries, x.bytes)
		room -= len(x.bytes) + 2
	}
	return all
}

var _ machine.Machine = (*Roster)(nil)
