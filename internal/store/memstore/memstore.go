// Package memstore is a store.Store in memory, for tests. It obeys the same
// limit arithmetic as store/diskstore; what it holds is gone when it is closed.
package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

// Store holds records in a map. The zero Store is not usable; see New.
type Store struct {
	limit  int64
	failed chan struct{}

	mu      sync.RWMutex
	closed  bool
	err     error // set by Fail
	records map[store.Key][]byte
	used    int64
	blocks  int64
}

var _ store.Store = (*Store)(nil)

// New makes an empty store. limit is in bytes, at least store.MinLimit; 0
// means 1 GiB.
func New(limit int64) (*Store, error) {
	if limit == 0 {
		limit = 1 << 30
	}
	if err := store.CheckLimit(limit); err != nil {
		return nil, err
	}
	return &Store{
		limit:   limit,
		failed:  make(chan struct{}),
		records: make(map[store.Key][]byte),
	}, nil
}

// usable is called with mu held.
func (s *Store) usable(ctx context.Context) error {
	switch {
	case s.err != nil:
		return s.err
	case s.closed:
		return store.ErrClosed
	}
	return ctx.Err()
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, b store.Batch) error {
	if err := store.CheckOps(b.Ops); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(ctx); err != nil {
		return err
	}
	after := make(map[store.Key][]byte, len(b.Ops))
	var grow, blocks int64
	for _, op := range b.Ops {
		old, ok := after[op.Key]
		if !ok {
			old = s.records[op.Key]
		}
		if old != nil {
			grow -= store.Cost(op.Key, len(old))
			blocks -= isBlock(op.Key)
		}
		after[op.Key] = nil
		if !op.Delete {
			grow += store.Cost(op.Key, len(op.Value))
			blocks += isBlock(op.Key)
			after[op.Key] = append([]byte{}, op.Value...) // never nil: nil is a deletion
		}
	}
	if !s.space().Fits(grow, b.Urgent) {
		return fmt.Errorf("memstore: %d bytes more: %w", grow, store.ErrFull)
	}
	for k, v := range after {
		if v == nil {
			delete(s.records, k)
		} else {
			s.records[k] = v
		}
	}
	s.used += grow
	s.blocks += blocks
	return nil
}

func isBlock(k store.Key) int64 {
	if k.Family == store.Block {
		return 1
	}
	return 0
}

// space is called with mu held.
func (s *Store) space() store.Space {
	return store.Space{Limit: s.limit, Used: s.used, Blocks: s.blocks, FSFree: math.MaxInt64}
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, k store.Key) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	v, ok := s.records[k]
	if !ok {
		return nil, fmt.Errorf("memstore: %v: %w", k, store.ErrNotFound)
	}
	return bytes.Clone(v), nil
}

// Range implements store.Store. Records that come while it runs may be missed.
func (s *Store) Range(ctx context.Context, fam store.Family, lo, hi id.GUID, f func(k store.Key, value []byte) bool) error {
	keys, err := s.keys(ctx, fam, lo, hi)
	if err != nil {
		return err
	}
	for _, k := range keys {
		s.mu.RLock()
		err := s.usable(ctx)
		v, ok := s.records[k]
		s.mu.RUnlock()
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if fam == store.Block {
			v = nil
		}
		if !f(k, v) {
			return nil
		}
	}
	return nil
}

func (s *Store) keys(ctx context.Context, fam store.Family, lo, hi id.GUID) ([]store.Key, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	var keys []store.Key
	for k := range s.records {
		if k.Family == fam && !k.GUID.Less(lo) && !hi.Less(k.GUID) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b store.Key) int {
		if c := a.GUID.Cmp(b.GUID); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.Sub), []byte(b.Sub))
	})
	return keys, nil
}

// Usage implements store.Store.
func (s *Store) Usage() store.Usage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.space().Usage()
}

// Fail stops the store as a disk error would, so that callers can be tested.
func (s *Store) Fail(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = errors.Join(fmt.Errorf("memstore: %w", store.ErrFailed), cause)
		close(s.failed)
	}
}

// Failed implements store.Store.
func (s *Store) Failed() <-chan struct{} { return s.failed }

// Close implements store.Store. A second Close does nothing.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.records = nil
	return nil
}
