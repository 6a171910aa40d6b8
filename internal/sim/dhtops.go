package sim

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

type opKind uint8

const (
	opPut opKind = iota
	opGet
	opRemove
	opWrite // signed put
	opRead  // signed get
	opDrain
	numOps
)

var opNames = [numOps]string{"put", "get", "remove", "signed_put", "signed_get", "drain"}

// dhtOp is an operation under way. One whose client died is maybe: nothing is
// known of it.
type dhtOp struct {
	kind   opKind
	node   Ref
	inc    int
	asked  machine.Time
	block  *blockModel
	owner  [32]byte
	claim  [16]byte
	stamp  uint64
	must   bool // the block had to be there when it was asked for
	reg    *regModel
	seq    uint64
	hash   [32]byte
	bound  uint64
	excuse bool // a fault took a disk meanwhile: its receipts may be void
	final  *finalCheck
}

// finalCheck is a read of the last phase.
type finalCheck struct {
	tries int
}

// dhtStats counts operations.
type dhtStats struct {
	asked, ok [numOps]int64
	errs      map[string]int64 // "get unavailable" → n
	ends      map[string]int64
	remarks   []string
	seconds   [numOps][]float64
}

func (s *dhtStats) init() { s.errs, s.ends = make(map[string]int64), make(map[string]int64) }

const (
	numOwners    = 4
	numRegisters = 12 // by default
)

// owner returns an owner key; the registers' owners are the same.
func ownerKey(i int) [32]byte { return blake3.Sum256([]byte(fmt.Sprintf("owner %d", i))) }

// startOps lets clients work until the faults end.
func (r *dhtRun) startOps() {
	stable := !r.faults["join"] && !r.faults["leave"] && !r.faults["kill"] && !r.faults["amnesia"] &&
		!r.faults["partition"] && !r.faults["oneway"] && !r.faults["crash"] && !r.faults["crashstep"] &&
		!r.faults["freeze"] && !r.faults["fsync"]
	registers := r.cfg.Registers
	if registers == 0 {
		registers = numRegisters
	}
	for i := range registers {
		m := &regModel{
			owner: ownerKey(i % numOwners), salt: []byte{byte(i)}, stable: stable,
			values: make(map[uint64][][32]byte), acked: make(map[uint64][32]byte), seen: make(map[Ref]uint64),
			disks: make(map[Ref]uint64),
		}
		m.guid = dht.SignedGUID(m.owner, m.salt)
		r.reg.regs = append(r.reg.regs, m)
	}
	if r.cfg.OpsPerS <= 0 {
		return
	}
	gap := machine.Duration(1e6 / r.cfg.OpsPerS)
	var again func()
	again = func() {
		r.e.After(max(1, expDuration(r.rnd.op, gap)), func() {
			if r.phase != "faults" {
				return
			}
			r.mute = !r.parts.operation()
			if n := r.pickReady(r.rnd.op); n != World {
				r.randomOp(n)
			}
			r.mute = false
			again()
		})
	}
	again()
}

func (r *dhtRun) randomOp(n Ref) {
	rnd := r.rnd.op
	old := func() *blockModel {
		if len(r.set.order) == 0 {
			return nil
		}
		if rnd.IntN(2) == 0 { // one of the last twenty
			return r.set.order[len(r.set.order)-1-rnd.IntN(min(20, len(r.set.order)))]
		}
		return r.set.order[rnd.IntN(len(r.set.order))]
	}
	signed := r.cfg.Signed
	if signed == 0 {
		signed = 22
	}
	if rnd.IntN(100) < signed {
		m := r.reg.regs[rnd.IntN(len(r.reg.regs))]
		if rnd.IntN(2) == 0 {
			r.write(n, m)
		} else {
			r.read(n, m, nil)
		}
		return
	}
	kinds := 78
	if r.cfg.Keep {
		kinds = 68
	}
	switch p := rnd.IntN(kinds); {
	case p < 28 || len(r.set.order) == 0:
		r.put(n, r.newBlock(), ownerKey(rnd.IntN(numOwners)), r.newClaim())
	case p < 36: // a known block under another claim
		r.put(n, old().bytes, ownerKey(rnd.IntN(numOwners)), r.newClaim())
	case p < 40: // again under an old claim
		b := old()
		c := b.claims[rnd.IntN(len(b.claims))]
		r.put(n, b.bytes, c.owner, c.claim)
	case p < 68:
		r.get(n, old(), nil)
	default:
		b := old()
		c := b.claims[rnd.IntN(len(b.claims))]
		r.removeOp(n, b, c)
	}
}

func (r *dhtRun) newBlock() []byte {
	b := make([]byte, 8+16+r.rnd.data.IntN(1000))
	copy(b, "ATB1\x02\x01\x00\x00")
	for i := 8; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.rnd.data.Uint64())
	}
	return b
}

func (r *dhtRun) newClaim() (c [16]byte) {
	binary.LittleEndian.PutUint64(c[:], r.rnd.data.Uint64())
	return c
}

// stamp is the owner's clock. Owners have one clock, which is right: what
// replicas' clocks do is the fault.
func (r *dhtRun) stamp() uint64 { return wallStamp(1_700_000_000_000, r.e.Now()) }

// issue hands a command to n and gives it up when it had ample time.
func (r *dhtRun) issue(op *dhtOp, body any) {
	if r.mute {
		return
	}
	r.nextOp++
	num := r.nextOp
	op.asked, op.inc = r.e.Now(), r.peers[op.node].inc
	r.ops[num] = op
	r.stat.asked[op.kind]++
	r.logOp(op, "asked")
	r.e.Command(op.node, num, body)
	r.e.After(3*machine.Minute, func() { r.overdue(num) })
}

// logOp tells the log of an operation.
func (r *dhtRun) logOp(op *dhtOp, what string) {
	if r.cfg.Log == nil {
		return
	}
	var g id.GUID
	switch {
	case op.block != nil:
		g = op.block.guid
	case op.reg != nil:
		g = op.reg.guid
	}
	fmt.Fprintf(r.cfg.Log, "%s %s client.%s key %s owner %x claim %x stamp %d seq %d side %d: %s\n", logTime(r.e.Now()), r.name(op.node), opNames[op.kind],
		g.Short(), op.owner[:2], op.claim[:2], op.stamp, op.seq, r.e.Group(op.node), what)
}

// overdue: a machine owes every command a reply.
func (r *dhtRun) overdue(num uint64) {
	op := r.ops[num]
	if op == nil {
		return
	}
	delete(r.ops, num)
	p := &r.peers[op.node]
	if op.kind == opDrain {
		p.leaving = false // takes as long as it takes
		return
	}
	if p.state == running && p.inc == op.inc && p.thawed.Add(3*machine.Minute) < r.e.Now() {
		r.fail("no reply", fmt.Sprintf("%s at %s unanswered after 3 minutes", opNames[op.kind], r.name(op.node)))
	}
}

// excuseOps marks operations under way whose receipts a fault may void: those
// on one block, or all.
func (r *dhtRun) excuseOps(g *id.GUID) {
	for _, op := range r.ops {
		if g == nil || op.block != nil && op.block.guid == *g || op.reg != nil && op.reg.guid == *g {
			op.excuse = true
		}
	}
}

// excuseSigned is excuseOps for the signed blocks alone.
func (r *dhtRun) excuseSigned() {
	for _, op := range r.ops {
		op.excuse = op.excuse || op.reg != nil
	}
}

func (r *dhtRun) put(n Ref, block []byte, owner [32]byte, claim [16]byte) {
	stamp := r.stamp()
	if r.mute {
		stamp = 0 // never asked for, but later operations count it
	}
	b := r.set.asked(block, owner, claim, stamp)
	cert := dht.NewStoreCert(r.pool.id, b.guid, owner, claim, len(block), r.cfg.K, stamp)
	cert.SignWith(func(domain string, msg []byte) [64]byte { return fakeSign(owner, domain, msg) })
	r.issue(&dhtOp{kind: opPut, node: n, block: b, owner: owner, claim: claim, stamp: stamp},
		dht.PutCmd{Cert: cert, Block: block})
}

func (r *dhtRun) get(n Ref, b *blockModel, f *finalCheck) {
	r.issue(&dhtOp{kind: opGet, node: n, block: b, must: b.must(), final: f}, dht.GetCmd{GUID: b.guid})
}

func (r *dhtRun) removeOp(n Ref, b *blockModel, c *claimModel) {
	rec := dht.Remove{Pool: r.pool.id, GUID: b.guid, Owner: c.owner, Claim: c.claim, Stamp: r.stamp()}
	rec.SignWith(func(domain string, msg []byte) [64]byte { return fakeSign(c.owner, domain, msg) })
	if !r.mute {
		c.removeAsked = max(c.removeAsked, rec.Stamp)
	}
	r.issue(&dhtOp{kind: opRemove, node: n, block: b, owner: c.owner, claim: c.claim, stamp: rec.Stamp},
		dht.RemoveCmd{Rec: rec})
}

// write raises a register under cas, from what this client last saw or, more
// often, from the newest that any saw.
func (r *dhtRun) write(n Ref, m *regModel) {
	cas := m.seen[n]
	if r.rnd.op.IntN(4) > 0 {
		cas = max(cas, m.ackedSeq) // the owner's devices talk to each other
	}
	rec := dht.Signed{Pool: r.pool.id, Owner: m.owner, Salt: m.salt, Seq: cas + 1, Value: make([]byte, 24)}
	binary.LittleEndian.PutUint64(rec.Value, r.rnd.data.Uint64())
	again := r.faults["bitrot"] && r.rnd.op.IntN(4) == 0 // a retry meets copies that rotted since
	if r.mute {
		return
	}
	if again && m.last.Seq > 0 {
		rec, cas = m.last, m.last.Seq-1
	} else {
		rec.SignWith(func(domain string, msg []byte) [64]byte { return fakeSign(m.owner, domain, msg) })
		m.values[rec.Seq] = append(m.values[rec.Seq], blake3.Sum256(rec.Value))
		m.last = rec
	}
	hash := blake3.Sum256(rec.Value)
	r.issue(&dhtOp{kind: opWrite, node: n, reg: m, seq: rec.Seq, hash: hash}, dht.PutSignedCmd{Rec: rec, CAS: &cas})
}

func (r *dhtRun) read(n Ref, m *regModel, f *finalCheck) {
	r.issue(&dhtOp{kind: opRead, node: n, reg: m, bound: max(m.ackedSeq, m.readSeq), final: f}, dht.GetSignedCmd{GUID: m.guid})
}

// replied judges an answer. It runs inside the client's step.
func (r *dhtRun) replied(n Ref, num uint64, body any, err error) {
	op := r.ops[num]
	if op == nil || op.node != n {
		return
	}
	delete(r.ops, num)
	if err != nil {
		r.logOp(op, err.Error())
		r.refused(op, err)
		return
	}
	r.logOp(op, "done")
	r.stat.ok[op.kind]++
	r.stat.seconds[op.kind] = append(r.stat.seconds[op.kind], float64(r.e.Now().Sub(op.asked))/1e6)
	switch op.kind {
	case opPut:
		certs := countKeys(r.e, store.Key{Family: store.Claim, GUID: op.block.guid, Sub: sub(op.owner, op.claim)})
		if op.excuse {
			certs = r.set.w
		}
		r.set.acked(op.block, op.owner, op.claim, op.stamp, certs, op.excuse)
	case opGet:
		r.got(op, body.([]byte))
	case opRemove:
		tombs := countKeys(r.e, store.Key{Family: store.Tombstone, GUID: op.block.guid, Sub: sub(op.owner, op.claim)})
		if op.excuse {
			tombs = r.set.w
		}
		r.set.removeAcked(op.block, op.owner, op.claim, op.stamp, tombs)
	case opWrite:
		copies := r.signedCopies(op.reg, op.seq)
		if op.excuse {
			copies = r.set.w
		}
		r.reg.wrote(op.reg, op.seq, op.hash)
		if copies < r.set.w {
			r.fail("ack", fmt.Sprintf("signed block %s acknowledged with seq %d durable on %d disks, W is %d", op.reg.guid.Short(), op.seq, copies, r.set.w))
		}
		op.reg.seen[n] = max(op.reg.seen[n], op.seq)
	case opDrain:
		inc := op.inc
		r.e.After(0, func() { r.drained(n, inc) })
	case opRead:
		rec := body.(*dht.Signed)
		r.reg.read(op.reg, n, op.bound, rec.Seq, rec.ValueHash())
	}
}

func (r *dhtRun) got(op *dhtOp, block []byte) {
	if id.GUID(blake3.Sum256(block)) != op.block.guid {
		r.fail("wrong bytes", fmt.Sprintf("get %s returned %d bytes of another name", op.block.guid.Short(), len(block)))
	}
	if op.final != nil && op.block.gone() {
		r.fail("resurrected", fmt.Sprintf("block %s reads after its last claim was removed", op.block.guid.Short()))
	}
}

func (r *dhtRun) refused(op *dhtOp, err error) {
	code := err.Error()
	var ref *dht.Refusal
	if errors.As(err, &ref) {
		code = ref.Code
	}
	r.stat.errs[opNames[op.kind]+" "+code]++
	absent := code == dht.CodeNotFound || code == dht.CodeRemoved
	switch op.kind {
	case opGet:
		if absent && op.must && op.block.must() {
			r.missing(op, code)
		} else if op.final != nil && op.must {
			r.again(op, code)
		}
	case opRead:
		if absent && op.bound > 0 {
			what := fmt.Sprintf("signed block %s: %s, though seq %d was acknowledged", op.reg.guid.Short(), code, op.bound)
			r.fail("not found", what)
		} else if op.final != nil && op.bound > 0 && (code != dht.CodeEquivocation || !op.reg.forked()) {
			r.again(op, code)
		}
	case opDrain:
		r.peers[op.node].leaving = false
	case opWrite:
		if (code == dht.CodeCAS || code == dht.CodeStaleSeq) && ref != nil {
			op.reg.seen[op.node] = max(op.reg.seen[op.node], ref.Stamp)
		}
	}
}

// missing: not_found for an acknowledged block.
func (r *dhtRun) missing(op *dhtOp, code string) {
	reach := 0
	for _, n := range sortedRefs(op.block.disks) {
		if r.peers[n].state == running && !r.e.Frozen(n) && r.e.Hears(n, op.node) && r.e.Hears(op.node, n) {
			reach++
		}
	}
	r.fail("not found", fmt.Sprintf("get %s at %s: %s, though it was acknowledged; copies on %d disks, %d within reach",
		op.block.guid.Short(), r.name(op.node), code, len(op.block.disks), reach))
}

// again repeats a read of the last phase, which must succeed in the end.
func (r *dhtRun) again(op *dhtOp, code string) {
	op.final.tries++
	what := "block"
	var g id.GUID
	if op.block != nil {
		g = op.block.guid
	} else {
		what, g = "signed block", op.reg.guid
	}
	if op.final.tries >= 5 {
		r.fail("unavailable", fmt.Sprintf("%s %s does not read after all faults have ended: %s", what, g.Short(), code))
		return
	}
	r.e.After(5*machine.Second, func() {
		n := r.pickReady(r.rnd.op)
		switch {
		case n == World:
			r.again(op, "nobody is ready")
		case op.block != nil:
			r.get(n, op.block, op.final)
		default:
			r.read(n, op.reg, op.final)
		}
	})
}

// verify is the end of phase two: every object is asked for at two nodes.
func (r *dhtRun) verify() {
	if r.over() {
		return
	}
	r.phase = "verify"
	at := r.e.Now()
	ask := func(f func(n Ref)) {
		for range 2 {
			at = at.Add(5 * machine.Millisecond)
			r.e.At(at, func() {
				if n := r.pickReady(r.rnd.op); n != World {
					f(n)
				}
			})
		}
	}
	for _, b := range r.set.order {
		if b.put() {
			ask(func(n Ref) { r.get(n, b, &finalCheck{}) })
		}
	}
	for _, m := range r.reg.regs {
		ask(func(n Ref) { r.read(n, m, &finalCheck{}) })
	}
	r.end = at.Add(4 * machine.Minute)
	r.runUntil(r.end)
	for n := 1; n < len(r.peers); n++ {
		for _, k := range r.e.diskOf(Ref(n)).keys(store.Block) {
			if b := r.set.blocks[k.GUID]; b != nil && b.gone() && r.peers[n].state == running {
				r.stat.errs["removed bytes still on a disk"]++
			}
		}
	}
}

// safe reports that one disk may be destroyed within the promises: all that
// was acknowledged is on W disks that are left.
func (r *dhtRun) safe() bool {
	if !r.set.intact(r.set.w) {
		return false
	}
	for _, b := range r.set.order {
		for _, c := range b.claims {
			if c.live() && countKeys(r.e, store.Key{Family: store.Claim, GUID: b.guid, Sub: sub(c.owner, c.claim)}) < r.set.w {
				return false
			}
			if c.removeAcked > 0 && countKeys(r.e, store.Key{Family: store.Tombstone, GUID: b.guid, Sub: sub(c.owner, c.claim)}) < r.set.w {
				return false
			}
		}
	}
	for _, m := range r.reg.regs {
		if m.ackedSeq > 0 && r.signedCopies(m, m.ackedSeq) < r.set.w {
			return false
		}
	}
	return true
}

// signedCopies counts the disks where seq or a later version can be read.
func (r *dhtRun) signedCopies(m *regModel, seq uint64) (n int) {
	for i := range r.e.nodes {
		if s := r.goodSeq(Ref(i), m); s > 0 && s >= seq {
			n++
		}
	}
	return n
}

// goodSeq is the seq of m that can be read from the disk of n; 0 if none.
func (r *dhtRun) goodSeq(n Ref, m *regModel) uint64 {
	d, k := r.e.nodes[n].disk, store.Key{Family: store.Signed, GUID: m.guid}
	if d == nil || d.rotten[k] {
		return 0
	}
	rec, err := dht.DecodeSigned(d.data[k])
	if err != nil {
		return 0
	}
	return rec.Seq
}

// owesSigned says what is missing of a signed block, "" if nothing. A member that
// took a later version than any that can still be read takes no earlier one.
func (r *dhtRun) owesSigned(m *regModel, k int) string {
	var best uint64
	for n := range r.e.nodes {
		best = max(best, r.goodSeq(Ref(n), m))
	}
	live := 0
	for n := 1; n < len(r.peers); n++ {
		if s := r.goodSeq(Ref(n), m); r.peers[n].state == running && (s > 0 && s >= m.ackedSeq || m.disks[Ref(n)] > best) {
			live++
		}
	}
	if m.ackedSeq > 0 && live < k {
		return fmt.Sprintf("signed block %s has %d of %d copies", m.guid.Short(), live, k)
	}
	return ""
}

// lostSigned lists acknowledged versions that no disk has any more.
func (r *dhtRun) lostSigned() {
	for _, m := range r.reg.regs {
		if m.ackedSeq > 0 && r.signedCopies(m, m.ackedSeq) == 0 {
			r.fail("acknowledged write lost", fmt.Sprintf("no disk has seq %d of signed block %s", m.ackedSeq, m.guid.Short()))
		}
	}
}
