package node

import (
	"context"
	"errors"
	"fmt"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/files"
	"atoll.example/atoll/internal/id"
)

// Blocks is the pool's store of content blocks as this member uses it: what it
// stores is signed with its owner key.
func (n *Node) Blocks() files.Blocks { return blocks{n} }

type blocks struct{ n *Node }

// ask puts a command to the machine and takes its answer apart.
func ask[T any](ctx context.Context, n *Node, cmd any, note func(any)) (answer T, err error) {
	body, err := n.loop.command(ctx, cmd, note)
	if err != nil {
		return answer, n.coded(err)
	}
	answer, ok := body.(T)
	if !ok {
		panic(fmt.Sprintf("node: %T was answered with %T", cmd, body))
	}
	return answer, nil
}

// Command puts a command of package dht or stack to the machine.
func Command[T any](ctx context.Context, n *Node, cmd any, note func(any)) (T, error) {
	return ask[T](ctx, n, cmd, note)
}

func (b blocks) Put(ctx context.Context, g id.GUID, block []byte, claim [16]byte, opt files.PutOptions) (files.Copies, error) {
	done, err := b.n.PutBlock(ctx, g, block, claim, PutOptions{K: opt.K, W: opt.W, Known: opt.Known})
	if err != nil {
		return files.Copies{}, err
	}
	return files.Copies{Min: len(done.Receipts), Target: done.Target, Known: done.Known}, nil
}

// PutOptions say how a block is put. K and W of 0 are the pool's; Known blocks
// go without their bytes where the pool has them.
type PutOptions struct {
	K, W  int
	Known bool
}

// PutBlock stores a content block that this member owns.
func (n *Node) PutBlock(ctx context.Context, g id.GUID, block []byte, claim [16]byte, o PutOptions) (dht.PutDone, error) {
	k := o.K
	if k == 0 {
		k = n.who.pool.K
	}
	pool := n.who.pool.ID()
	cert := dht.NewStoreCert(pool, g, n.who.owner.Public(), claim, len(block), k, uint64(n.cfg.Wall()))
	cert.SignWith(n.who.owner.Sign)
	return ask[dht.PutDone](ctx, n, dht.PutCmd{Cert: cert, Block: block, W: o.W, Try: o.Known}, nil)
}

func (b blocks) Get(ctx context.Context, g id.GUID) ([]byte, error) {
	return ask[[]byte](ctx, b.n, dht.GetCmd{GUID: g}, nil)
}

func (b blocks) Head(ctx context.Context, gs []id.GUID) ([]files.Presence, error) {
	ps, err := ask[[]dht.Presence](ctx, b.n, dht.HeadCmd{GUIDs: gs}, nil)
	if err != nil {
		return nil, err
	}
	out := make([]files.Presence, len(ps))
	for i, p := range ps {
		out[i] = files.Presence{Copies: p.Copies, Target: p.Target, Size: p.Size}
	}
	return out, nil
}

func (b blocks) Remove(ctx context.Context, g id.GUID, claim [16]byte) (keptByOthers bool, err error) {
	done, err := b.n.RemoveBlock(ctx, g, claim)
	return done.KeptByOthers, err
}

// RemoveBlock ends a claim of this member on a block. If the claim is younger than
// this node's clock, which has been set back, the removal is dated after it.
func (n *Node) RemoveBlock(ctx context.Context, g id.GUID, claim [16]byte) (dht.RemoveDone, error) {
	rec := dht.Remove{
		Pool: n.who.pool.ID(), GUID: g, Owner: n.who.owner.Public(), Claim: claim, Stamp: uint64(n.cfg.Wall()),
	}
	rec.SignWith(n.who.owner.Sign)
	done, err := ask[dht.RemoveDone](ctx, n, dht.RemoveCmd{Rec: rec}, nil)
	var r *dht.Refusal
	if errors.As(err, &r) && r.Code == dht.CodeStaleSeq && r.Stamp >= rec.Stamp {
		rec.Stamp = r.Stamp + 1
		rec.SignWith(n.who.owner.Sign)
		return ask[dht.RemoveDone](ctx, n, dht.RemoveCmd{Rec: rec}, nil)
	}
	return done, err
}

func (b blocks) Audit(ctx context.Context, gs []id.GUID, deep, repair bool) ([]files.Audit, error) {
	as, err := ask[[]dht.Audit](ctx, b.n, dht.AuditCmd{GUIDs: gs, Deep: deep, Repair: repair}, nil)
	if err != nil {
		return nil, err
	}
	out := make([]files.Audit, len(as))
	for i, a := range as {
		out[i] = files.Audit{GUID: a.GUID, Valid: a.Valid, Corrupt: a.Corrupt, Missing: a.Missing, Repaired: a.Repaired, Bad: a.Bad}
	}
	return out, nil
}
