package acceptance

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"atoll.example/atoll/internal/api"
)

// stored is a file that was acknowledged.
type stored struct {
	link string
	size int64
	sum  [32]byte
	via  int // the member it was put through
}

// writeFile makes a file of random bytes.
func writeFile(t testing.TB, path string, size int64, rnd *rand.Rand) (sum [32]byte) {
	t.Helper()
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8(seed), size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	copy(sum[:], h.Sum(nil))
	return sum
}

// logUniform draws sizes whose logarithms are even over [0, most]: as many of a
// few bytes as of a few megabytes.
func logUniform(rnd *rand.Rand, num int, most, total int64) []int64 {
	sizes := make([]int64, num)
	var sum int64
	for i := range sizes {
		sizes[i] = int64(math.Exp(rnd.Float64()*math.Log(float64(most)+1)) - 1)
		if sum += sizes[i]; sum > total {
			sizes[i] = 0
		}
	}
	return sizes
}

// put stores a file of random bytes through member i.
func (p *pool) put(i int, size int64, rnd *rand.Rand) (stored, error) {
	path := filepath.Join(p.dir, fmt.Sprintf("in-%d-%d", i, rnd.Uint64()))
	s := stored{size: size, sum: writeFile(p.t, path, size, rnd), via: i}
	defer os.Remove(path)
	var r api.PutResult
	if err := p.try(i, &r, "put", path); err != nil {
		return s, err
	}
	s.link = r.Link
	return s, nil
}

// get fetches a file through member i and compares it.
func (p *pool) get(i int, s stored, rnd *rand.Rand) error {
	path := filepath.Join(p.dir, fmt.Sprintf("out-%d-%d", i, rnd.Uint64()))
	defer os.Remove(path)
	if err := p.try(i, nil, "get", s.link, "-o", path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return err
	}
	if n != s.size || !bytes.Equal(h.Sum(nil), s.sum[:]) {
		return fmt.Errorf("node %d gave %d bytes that are not the %d that were put", i, n, s.size)
	}
	return nil
}

// twins puts two files that share all chunks but the last.
func (p *pool) twins(size int64, rnd *rand.Rand) (first, second stored) {
	p.t.Helper()
	paths := [2]string{filepath.Join(p.dir, "twin-a"), filepath.Join(p.dir, "twin-b")}
	writeFile(p.t, paths[0], size, rnd)
	common, err := os.ReadFile(paths[0])
	if err != nil {
		p.t.Fatal(err)
	}
	var out [2]stored
	for i, path := range paths {
		content := append(bytes.Clone(common), fmt.Sprintf("twin %d", i)...)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			p.t.Fatal(err)
		}
		var r api.PutResult
		p.ok(0, &r, "put", path)
		out[i] = stored{link: r.Link, size: int64(len(content)), sum: sha256.Sum256(content)}
		if i == 1 && r.NewBlocks >= r.Blocks {
			p.t.Errorf("the second file shares no block with the first: %+v", r)
		}
	}
	return out[0], out[1]
}
