package service

import (
	"context"
	"errors"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/node"
	"atoll.example/atoll/internal/seal"
)

// rawClaim is the claim of blocks put with "dht put": one reason for all.
var rawClaim [16]byte

// DHTPut implements api.Service.
func (s *Service) DHTPut(ctx context.Context, r api.DHTPutRequest) (api.DHTPutResult, error) {
	if err := s.await(ctx, "dht put"); err != nil {
		return api.DHTPutResult{}, err
	}
	if r.Signed != nil {
		rec, key, err := s.signedRecord("dht put", r.Signed)
		if err != nil {
			return api.DHTPutResult{}, err
		}
		return s.putSigned(ctx, "dht put", rec, key, r.Signed.CAS)
	}
	if len(r.Raw) > seal.MaxPlain {
		return api.DHTPutResult{}, api.Errorf(api.BadRequest, "dht put", "", "%d bytes: a block holds at most %d; for files of any size: atoll put", len(r.Raw), seal.MaxPlain)
	}
	block := seal.Header{Kind: seal.KindRaw, Suite: seal.Clear}.Append(nil)
	block = append(block, r.Raw...)
	g := seal.BlockGUID(block)
	done, err := s.n.PutBlock(ctx, g, block, rawClaim, node.PutOptions{})
	if err != nil {
		return api.DHTPutResult{}, s.late("dht put", s.n.Pool().K, 0, err)
	}
	return api.DHTPutResult{GUID: g, Receipts: receipts(done.Receipts)}, nil
}

func receipts(rs []dht.Receipt) []api.Receipt {
	out := make([]api.Receipt, len(rs))
	for i := range rs {
		out[i] = api.Receipt{Node: rs[i].Node, Role: roleName(rs[i].Role)}
	}
	return out
}

func roleName(r dht.Role) string {
	switch r {
	case dht.RoleDiverted:
		return "diverted"
	case dht.RoleStandIn:
		return "stand-in"
	case dht.RoleTombstone:
		return "tombstone"
	default:
		return "replica"
	}
}

// signedRecord is the record that v asks for, neither numbered nor signed yet, and
// the key that signs it.
func (s *Service) signedRecord(op string, v *api.SignedValue) (dht.Signed, ident.Key, error) {
	key := s.n.Owner()
	if v.Key != "" {
		b, err := os.ReadFile(v.Key)
		if err != nil {
			return dht.Signed{}, key, fileError(op, v.Key, err)
		}
		if key, err = ident.ParseKey(b); err != nil {
			return dht.Signed{}, key, api.Errorf(api.BadRequest, op, v.Key, "%w", err)
		}
	}
	return dht.Signed{Pool: s.n.Pool().ID(), Owner: key.Public(), Salt: v.Salt, Seq: v.Seq, Value: v.Value}, key, nil
}

// putSigned writes rec as the next version of its block, which may be its end.
func (s *Service) putSigned(ctx context.Context, op string, rec dht.Signed, key ident.Key, cas *uint64) (api.DHTPutResult, error) {
	if rec.Seq == 0 {
		last, err := node.Command[*dht.Signed](ctx, s.n, dht.GetSignedCmd{GUID: rec.GUID()}, nil)
		switch {
		case err == nil:
			rec.Seq = last.Seq + 1
		case errors.Is(err, dht.ErrNotFound):
			rec.Seq = 1
		case errors.Is(err, dht.ErrRemoved):
			var refused *dht.Refusal
			errors.As(err, &refused)
			rec.Seq = refused.Stamp + 1
		default:
			return api.DHTPutResult{}, err
		}
	}
	rec.SignWith(key.Sign)
	done, err := node.Command[dht.PutDone](ctx, s.n, dht.PutSignedCmd{Rec: rec, CAS: cas}, nil)
	if err != nil {
		return api.DHTPutResult{}, s.late(op, s.n.Pool().K, 0, err)
	}
	s.seen.note(rec.GUID(), rec.Seq)
	return api.DHTPutResult{GUID: rec.GUID(), Seq: rec.Seq, Receipts: receipts(done.Receipts)}, nil
}

// DHTGet implements api.Service. A GUID does not tell which kind of block it
// names, so a content block that is not there is looked for as a signed one.
func (s *Service) DHTGet(ctx context.Context, r api.DHTGetRequest) (api.DHTGetResult, error) {
	if err := s.await(ctx, "dht get"); err != nil {
		return api.DHTGetResult{}, err
	}
	block, err := s.n.Blocks().Get(ctx, r.GUID)
	if err == nil {
		if len(block) < seal.HeaderSize {
			return api.DHTGetResult{}, api.Errorf(api.Corrupt, "dht get", r.GUID.String(), "block without a header")
		}
		return api.DHTGetResult{Value: block[seal.HeaderSize:]}, nil
	}
	if !errors.Is(err, dht.ErrNotFound) {
		return api.DHTGetResult{}, err
	}
	rec, err := node.Command[*dht.Signed](ctx, s.n, dht.GetSignedCmd{GUID: r.GUID, Any: r.Any, MinSeq: s.seen.last(r.GUID)}, nil)
	if err != nil {
		return api.DHTGetResult{}, err
	}
	s.seen.note(r.GUID, rec.Seq)
	return api.DHTGetResult{Value: rec.Value, Seq: &rec.Seq}, nil
}

// DHTRemove implements api.Service.
func (s *Service) DHTRemove(ctx context.Context, r api.DHTRemoveRequest) (api.DHTRemoveResult, error) {
	if err := s.await(ctx, "dht remove"); err != nil {
		return api.DHTRemoveResult{}, err
	}
	if r.Sign != nil {
		rec, key, err := s.signedRecord("dht remove", r.Sign)
		if err != nil {
			return api.DHTRemoveResult{}, err
		}
		if g := rec.GUID(); g != r.GUID { // found before anything is removed
			return api.DHTRemoveResult{}, api.Errorf(api.BadSig, "dht remove", r.GUID.String(), "key and salt name another block, %s; nothing was removed", g)
		}
		rec.Value, rec.Removed = nil, true
		done, err := s.putSigned(ctx, "dht remove", rec, key, r.Sign.CAS)
		if err != nil {
			return api.DHTRemoveResult{}, err
		}
		return api.DHTRemoveResult{Receipts: done.Receipts}, nil
	}
	if err := s.isContent(ctx, r.GUID); err != nil {
		return api.DHTRemoveResult{}, err
	}
	done, err := s.n.RemoveBlock(ctx, r.GUID, rawClaim)
	if err != nil {
		return api.DHTRemoveResult{}, s.late("dht remove", s.n.Pool().K, 0, err)
	}
	return api.DHTRemoveResult{Receipts: receipts(done.Receipts), KeptByOthers: done.KeptByOthers}, nil
}

// isContent refuses the name of a signed block, and one that names nothing: a
// claim can be ended there too, but nothing would be removed. A content block
// that is removed already, or of which no copy can be had now, passes: its
// removal may have been cut short.
func (s *Service) isContent(ctx context.Context, g id.GUID) error {
	_, err := s.n.Blocks().Get(ctx, g)
	if !errors.Is(err, dht.ErrNotFound) {
		return nil
	}
	_, signed := node.Command[*dht.Signed](ctx, s.n, dht.GetSignedCmd{GUID: g}, nil)
	if signed == nil || errors.Is(signed, &dht.Refusal{Code: dht.CodeEquivocation}) {
		return api.Errorf(api.BadRequest, "dht remove", g.String(),
			"this is a signed block, which its key removes: give the key and salt it was put with (--sign KEY --salt SALT)")
	}
	return signed
}

// Metrics implements api.Node.
func (s *Service) Metrics() prometheus.Gatherer { return s.metrics }
