package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/seal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// refusal is an error as a pool gives it.
type refusal struct {
	code  string
	after int64
	nodes []id.GUID
	gone  bool
}

func (r *refusal) Error() string     { return "refused: " + r.code }
func (r *refusal) Code() string      { return r.code }
func (r *refusal) AfterMS() int64    { return r.after }
func (r *refusal) Nodes() []id.GUID  { return r.nodes }
func (r *refusal) Removed() bool     { return r.gone }
func refuse(code string) error       { return &refusal{code: code} }
func hasCode(e error, c string) bool { return e != nil && Code(e) == c }

// pool is Blocks in memory, with faults on demand.
type pool struct {
	mu      sync.Mutex // guards all below
	blocks  map[id.GUID][]byte
	claims  map[id.GUID]map[[16]byte]bool
	removed map[id.GUID]bool
	calls   map[string]int
	flying  int
	most    int // of flying
	sent    int64
	limit   int // claims on one block; 0: any number

	// Faults; called with mu held. nil: none.
	onPut func(g id.GUID, block []byte) error
	onGet func(g id.GUID, block []byte) ([]byte, error)
	onAny func(op string) error
	onEnd func(g id.GUID) // of a claim
	// wait is called without the lock, so that a test can hold calls up.
	wait func(ctx context.Context, op string) error
}

func newPool() *pool {
	return &pool{
		blocks: make(map[id.GUID][]byte), claims: make(map[id.GUID]map[[16]byte]bool),
		removed: make(map[id.GUID]bool), calls: make(map[string]int),
	}
}

const fakeK = 3

func (p *pool) enter(ctx context.Context, op string) (leave func(), err error) {
	p.mu.Lock()
	p.calls[op]++
	p.flying++
	p.most = max(p.most, p.flying)
	wait := p.wait
	p.mu.Unlock()
	if wait != nil {
		err = wait(ctx, op)
	}
	if err == nil {
		err = ctx.Err()
	}
	p.mu.Lock()
	p.flying--
	if err == nil && p.onAny != nil {
		err = p.onAny(op)
	}
	return p.mu.Unlock, err
}

func (p *pool) Put(ctx context.Context, g id.GUID, block []byte, claim [16]byte, opt PutOptions) (Copies, error) {
	leave, err := p.enter(ctx, "put")
	defer leave()
	if err != nil {
		return Copies{}, err
	}
	if seal.BlockGUID(block) != g {
		return Copies{}, refuse("bad_name")
	}
	if len(block) > seal.MaxBlock {
		return Copies{}, refuse("bad_request")
	}
	if p.onPut != nil {
		if err := p.onPut(g, block); err != nil {
			return Copies{}, err
		}
	}
	if p.limit > 0 && len(p.claims[g]) >= p.limit && !p.claims[g][claim] {
		return Copies{}, refuse("claims")
	}
	_, known := p.blocks[g]
	if !known {
		p.blocks[g] = block
		p.claims[g] = make(map[[16]byte]bool)
	}
	if !known || !opt.Known {
		p.sent += int64(len(block))
	}
	p.claims[g][claim] = true
	return Copies{Min: 2, Target: fakeK, Known: known}, nil
}

func (p *pool) Get(ctx context.Context, g id.GUID) ([]byte, error) {
	leave, err := p.enter(ctx, "get")
	defer leave()
	if err != nil {
		return nil, err
	}
	b, ok := p.blocks[g]
	if !ok {
		if p.removed[g] {
			return nil, refuse("removed")
		}
		return nil, refuse("not_found")
	}
	if p.onGet != nil {
		return p.onGet(g, b)
	}
	return b, nil
}

func (p *pool) Head(ctx context.Context, gs []id.GUID) ([]Presence, error) {
	leave, err := p.enter(ctx, "head")
	defer leave()
	if err != nil {
		return nil, err
	}
	if len(gs) == 0 || len(gs) > MaxBatch {
		return nil, refuse("bad_request")
	}
	out := make([]Presence, len(gs))
	for i, g := range gs {
		if b, ok := p.blocks[g]; ok {
			out[i] = Presence{Copies: fakeK, Target: fakeK, Size: uint32(len(b))}
		}
	}
	return out, nil
}

func (p *pool) Remove(ctx context.Context, g id.GUID, claim [16]byte) (bool, error) {
	leave, err := p.enter(ctx, "remove")
	defer leave()
	if err != nil {
		return false, err
	}
	if p.onEnd != nil {
		p.onEnd(g)
	}
	delete(p.claims[g], claim)
	if len(p.claims[g]) > 0 {
		return true, nil
	}
	if _, ok := p.blocks[g]; ok {
		p.removed[g] = true
	}
	delete(p.blocks, g)
	delete(p.claims, g)
	return false, nil
}

// fakeLiar is who has the corrupt copies.
var fakeLiar = id.FromPrefix("11a5")

func (p *pool) Audit(ctx context.Context, gs []id.GUID, _, repair bool) ([]Audit, error) {
	leave, err := p.enter(ctx, "audit")
	defer leave()
	if err != nil {
		return nil, err
	}
	if len(gs) == 0 || len(gs) > MaxBatch {
		return nil, refuse("bad_request")
	}
	out := make([]Audit, len(gs))
	for i, g := range gs {
		b, ok := p.blocks[g]
		switch {
		case !ok:
			out[i] = Audit{GUID: g, Missing: fakeK}
		case seal.BlockGUID(b) != g:
			out[i] = Audit{GUID: g, Valid: fakeK - 1, Corrupt: 1, Missing: 1, Bad: []id.GUID{fakeLiar}}
			if repair {
				out[i].Valid, out[i].Repaired, out[i].Missing = fakeK, 1, 0
			}
		default:
			out[i] = Audit{GUID: g, Valid: fakeK}
		}
	}
	return out, nil
}

func (p *pool) count(op string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[op]
}

func (p *pool) claimCount(claim [16]byte) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.claims {
		if c[claim] {
			n++
		}
	}
	return n
}

func (p *pool) guids() []id.GUID {
	p.mu.Lock()
	defer p.mu.Unlock()
	var gs []id.GUID
	for g := range p.blocks {
		gs = append(gs, g)
	}
	slices.SortFunc(gs, id.GUID.Cmp)
	return gs
}

// reset forgets counts and faults, and keeps blocks.
func (p *pool) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = make(map[string]int)
	p.onPut, p.onGet, p.onAny, p.onEnd, p.wait = nil, nil, nil, nil, nil
	p.most, p.sent = 0, 0
}

var testPool = [32]byte{1, 2, 3, 4}

type options func(*Config)

func chunkOf(n int) options { return func(c *Config) { c.ChunkSize = n } }

func open(t testing.TB, p Blocks, dir string, opts ...options) *Client {
	t.Helper()
	cfg := Config{Dir: dir, Pool: testPool, Secret: seal.Secret{1}, Blocks: p}
	for _, o := range opts {
		o(&cfg)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// data returns n bytes that follow from seed, without repetition.
func data(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func put(t testing.TB, c *Client, b []byte) Result {
	t.Helper()
	r, err := c.PutFile(t.Context(), PutRequest{Source: bytes.NewReader(b), Name: "file"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func get(t testing.TB, c *Client, l seal.Link) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := c.GetFile(t.Context(), l, &b, GetOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func uploads(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "uploads", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var errCut = errors.New("cut short")

// flaky fails a share of all calls with codes worth another try.
func flaky(seed uint64, percent int) func(op string) error {
	r := rand.New(rand.NewPCG(seed, 2))
	return func(string) error {
		if r.IntN(100) < percent {
			return refuse([]string{"busy", "unavailable", "deadline"}[r.IntN(3)])
		}
		return nil
	}
}

// waitFor polls a condition that other goroutines bring about.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never happened: " + what)
		}
		<-tick.C
	}
}

var _ Blocks = (*pool)(nil)

func describe(b []byte) string {
	if len(b) > 16 {
		return fmt.Sprintf("%d bytes %x…", len(b), b[:16])
	}
	return fmt.Sprintf("%x", b)
}
