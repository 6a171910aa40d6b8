package memstore

import (
	"errors"
	"testing"

	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, storetest.Target{
		Open: func(t testing.TB, limit int64) store.Store {
			s, err := New(limit)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Large: 256 << 10,
	})
}

func TestFail(t *testing.T) {
	s, err := New(0)
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("sector gone")
	s.Fail(cause)
	s.Fail(errors.New("second"))
	<-s.Failed()
	err = s.Apply(t.Context(), store.Batch{})
	if !errors.Is(err, store.ErrFailed) || !errors.Is(err, cause) {
		t.Errorf("apply: %v", err)
	}
	if _, err := s.Get(t.Context(), store.Key{Family: store.Head}); !errors.Is(err, store.ErrFailed) {
		t.Errorf("get: %v", err)
	}
}

func TestLimit(t *testing.T) {
	if _, err := New(store.MinLimit - 1); err == nil {
		t.Error("a limit below the least was taken")
	}
}
