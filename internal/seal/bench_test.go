package seal

import (
	"bytes"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/cputime"
)

func benchPlain(size int) []byte {
	b := make([]byte, size)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

// BenchmarkSealPipeline is what a put costs per chunk before the network:
// look for zeros, derive, encrypt, name. GB/CPU-s counts the CPU time of the
// whole process, collector included, and so holds on a busy machine, too.
//
// of-limit is the share of what is inherent, measured in the same run: two
// passes of BLAKE3, since r covers the plaintext and the name the ciphertext,
// and one of AES-GCM, in place.
func BenchmarkSealPipeline(b *testing.B) {
	plain, zero := benchPlain(MaxPlain), make([]byte, MaxPlain)
	s := NewSealer(secretOf(1))
	b.SetBytes(MaxPlain)
	start := cputime.Used()
	for b.Loop() {
		if bytes.Equal(plain, zero) {
			b.Fatal("zero")
		}
		block, _, err := s.Data(plain, 0)
		if err != nil {
			b.Fatal(err)
		}
		if BlockGUID(block).IsZero() {
			b.Fatal("GUID")
		}
	}
	used := cputime.Used() - start
	b.StopTimer()
	block, key := make([]byte, MaxPlain, MaxPlain+tagSize), [32]byte{}
	limit := cpuOf(b.N, func() {
		blake3.Sum256(plain)
		aead(&key).Seal(block[:0], zeroNonce[:], block, nil)
		blake3.Sum256(block)
	})
	if used > 0 {
		b.ReportMetric(float64(b.N)*MaxPlain/1e9/used.Seconds(), "GB/CPU-s")
		b.ReportMetric(limit.Seconds()/used.Seconds(), "of-limit")
	}
}

// cpuOf is the CPU time of n calls.
func cpuOf(n int, f func()) time.Duration {
	start := cputime.Used()
	for range n {
		f()
	}
	return cputime.Used() - start
}

// BenchmarkSealParts is what the pipeline is made of.
func BenchmarkSealParts(b *testing.B) {
	plain, key := benchPlain(MaxPlain), [32]byte{}
	block := make([]byte, MaxPlain, MaxPlain+tagSize)
	for _, part := range []struct {
		name string
		f    func()
	}{
		{"BLAKE3", func() { blake3.Sum256(plain) }},
		{"AES-GCM", func() { aead(&key).Seal(block[:0], zeroNonce[:], block, nil) }},
	} {
		b.Run(part.name, func(b *testing.B) {
			b.SetBytes(MaxPlain)
			start := cputime.Used()
			for b.Loop() {
				part.f()
			}
			if used := cputime.Used() - start; used > 0 {
				b.ReportMetric(float64(b.N)*MaxPlain/1e9/used.Seconds(), "GB/CPU-s")
			}
		})
	}
}

func BenchmarkSeal4KiB(b *testing.B) {
	plain := benchPlain(4096)
	s := NewSealer(secretOf(1))
	b.SetBytes(4096)
	for b.Loop() {
		if _, _, err := s.Data(plain, 0); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	block, r, _ := NewSealer(secretOf(1)).Data(benchPlain(MaxPlain), 0)
	dst := make([]byte, 0, MaxPlain)
	b.SetBytes(MaxPlain)
	for b.Loop() {
		if _, err := OpenData(dst, block, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkManifest(b *testing.B) {
	m := &Manifest{Level: 1}
	for i := range FanOut {
		m.Children = append(m.Children, Child{GUID: [32]byte{byte(i)}, Read: ReadKey{1, byte(i)}, Length: 1})
	}
	s := NewSealer(secretOf(1))
	block, r, err := s.Manifest(m, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := s.Manifest(m, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			if _, err := OpenManifest(block, r, false); err != nil {
				b.Fatal(err)
			}
		}
	})
}
