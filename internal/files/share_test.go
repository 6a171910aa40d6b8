package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
)

// TestManyFilesAtOnce: transfers share the places for chunks. What all have in
// transfer at once is bounded, also of those that are cut short.
func TestManyFilesAtOnce(t *testing.T) {
	const chunk, num = 512, 12 // with a window of 16 each: 192 blocks
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	ctx, cancel := context.WithCancel(t.Context())
	p.wait = func(ctx context.Context, op string) error {
		if op == "put" {
			<-ctx.Done() // the pool says nothing
			return ctx.Err()
		}
		return nil
	}
	var puts sync.WaitGroup
	for i := range num {
		path := writeFile(t, fmt.Sprint(i), data(uint64(i), 40*chunk))
		puts.Go(func() {
			if _, err := c.PutFile(ctx, PutRequest{Path: path}); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
	waitFor(t, "all places to be taken", func() bool { return len(c.places) == places && p.count("put") >= num })
	cancel()
	puts.Wait()
	if p.most > places+2*num { // and one Head each
		t.Errorf("%d blocks in transfer at once", p.most)
	}
	if n := len(c.places); n != 0 {
		t.Errorf("%d places are taken, and nothing is under way", n)
	}
}

// TestStuckReaders: gets whose readers have stopped reading hold all places they
// can, and others go on.
func TestStuckReaders(t *testing.T) {
	const chunk = 512
	p := newPool()
	c := open(t, p, t.TempDir(), chunkOf(chunk))
	want := data(1, 60*chunk)
	l := put(t, c, want).Link
	ctx, cancel := context.WithCancel(t.Context())
	var stuck sync.WaitGroup
	for range 4 {
		stuck.Go(func() {
			if _, err := c.GetFile(ctx, l, stuckWriter{ctx}, GetOptions{}); err == nil {
				t.Error("a get ended whose reader takes nothing")
			}
		})
	}
	waitFor(t, "all places to be taken", func() bool { return len(c.places) == places })
	if !bytes.Equal(get(t, c, l), want) {
		t.Error("came back wrong")
	}
	dir := t.TempDir()
	if _, _, err := c.SaveFile(t.Context(), l, dir, SaveOptions{Name: "out"}); err != nil {
		t.Error(err)
	}
	put(t, c, data(2, 60*chunk))
	cancel()
	stuck.Wait()
	if n := len(c.places); n != 0 {
		t.Errorf("%d places are taken, and nothing is under way", n)
	}
}

// stuckWriter takes nothing until ctx ends.
type stuckWriter struct{ ctx context.Context }

var _ io.Writer = stuckWriter{}

func (w stuckWriter) Write([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, fmt.Errorf("written: %w", w.ctx.Err())
}
