package api_test

import (
	"bytes"
	"context"
	"io"
	"testing"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/api/apitest"
)

// sink takes a put's bytes and forgets them.
type sink struct{ *apitest.Node }

func (sink) Put(_ context.Context, _ api.PutParams, body io.Reader, _ api.Report) (api.PutResult, error) {
	n, err := io.Copy(io.Discard, body)
	return api.PutResult{Size: n}, err
}

const streamed = 64 << 20

// What the socket costs: 64 MiB through it in either direction.
func BenchmarkStream(b *testing.B) {
	n := apitest.New()
	f := n.Add("f", bytes.Repeat([]byte("0123456789abcdef"), streamed/16), false)
	dir := b.TempDir()
	l, err := api.Listen(dir)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- api.NewServer(sink{n}).Serve(ctx, l) }()
	c := api.NewClient(dir)
	b.Cleanup(func() {
		c.Close()
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	b.Run("Put", func(b *testing.B) {
		b.SetBytes(streamed)
		for b.Loop() {
			v, err := c.Put(b.Context(), api.PutParams{Size: -1}, io.LimitReader(zeros{}, streamed), nil)
			if err != nil || v.Size != streamed {
				b.Fatal(v.Size, err)
			}
		}
	})
	b.Run("Get", func(b *testing.B) {
		b.SetBytes(streamed)
		for b.Loop() {
			_, err := c.Get(b.Context(), api.GetRequest{Link: f.Link}, func(api.GetHead) (io.Writer, error) { return io.Discard, nil }, nil)
			if err != nil {
				b.Fatal(err)
			}
		}
	})
}
