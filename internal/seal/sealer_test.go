package seal

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func secretOf(b byte) (s Secret) {
	for i := range s {
		s[i] = b
	}
	return s
}

var drawPlain = rapid.Custom(func(t *rapid.T) []byte {
	n := rapid.SampledFrom([]int{0, 1, 15, 16, 17, 1023, 1024, 4095, 4096, 4097, 70_000}).Draw(t, "size")
	b := bytes.Repeat(rapid.SliceOfN(rapid.Byte(), 1, 64).Draw(t, "pattern"), n+1)
	return b[:n]
})

// Sealed data opens to what it was, is named the same when sealed again, and
// is named otherwise under another secret or salt.
func TestDataRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain := drawPlain.Draw(t, "plain")
		secret := secretOf(rapid.Byte().Draw(t, "secret"))
		salt := rapid.Uint8().Draw(t, "salt")
		s := NewSealer(secret)
		block, r, err := s.Data(plain, salt)
		if err != nil {
			t.Fatal(err)
		}
		if len(block) != len(plain)+Overhead {
			t.Fatalf("block of %d bytes for %d", len(block), len(plain))
		}
		got, err := OpenData(nil, block, r)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("opened %d bytes, %v", len(got), err)
		}
		again, r2, _ := NewSealer(secret).Data(plain, salt)
		if !bytes.Equal(again, block) || r2 != r {
			t.Fatal("sealing is not deterministic")
		}
		if re := Reseal(nil, plain, salt, r); !bytes.Equal(re, block) {
			t.Fatal("Reseal gives another block")
		}
		other, r3, _ := s.Data(plain, salt+1)
		if BlockGUID(other) == BlockGUID(block) || r3 == r {
			t.Fatal("salt does not change the block")
		}
		foreign, _, _ := NewSealer(secretOf(secret[0]+1)).Data(plain, salt)
		if BlockGUID(foreign) == BlockGUID(block) {
			t.Fatal("secret does not change the block")
		}
	})
}

// Every flipped bit is noticed: in the header (as AAD), the body, the tag, the key.
func TestTamperingIsDetected(t *testing.T) {
	block, r, err := NewSealer(secretOf(1)).Data([]byte("forty-two bytes of a file that matters.."), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(block) * 8 {
		bad := bytes.Clone(block)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenData(nil, bad, r); err == nil {
			t.Fatalf("bit %d flipped, block opens", i)
		}
	}
	for i := range 256 {
		bad := r
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenData(nil, block, bad); !errors.Is(err, ErrSeal) {
			t.Fatalf("bit %d of the key flipped: %v", i, err)
		}
	}
	for n := range len(block) {
		if _, err := OpenData(nil, block[:n], r); err == nil {
			t.Fatalf("cut to %d bytes, block opens", n)
		}
	}
}

func TestKeyOfOneKindOpensNoOther(t *testing.T) {
	plain := []byte("data")
	sealed, r, _ := NewSealer(secretOf(1)).Data(plain, 0)
	clear, r0, _ := NewClearSealer().Data(plain, 0)
	if r0 != (ReadKey{}) {
		t.Fatal("clear block with a key")
	}
	if got, err := OpenData(nil, clear, r0); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("clear block: %q, %v", got, err)
	}
	// A holder must not pass a clear block for a sealed one, nor the reverse.
	if _, err := OpenData(nil, clear, r); err == nil {
		t.Fatal("a sealed child was answered by a clear block")
	}
	if _, err := OpenData(nil, sealed, r0); err == nil {
		t.Fatal("a sealed block opened without key")
	}
	if _, err := OpenManifest(sealed, r, true); !errors.Is(err, ErrBlock) {
		t.Fatalf("data passed for a manifest: %v", err)
	}
}

func TestSizeBounds(t *testing.T) {
	big := make([]byte, MaxPlain+1)
	for _, s := range []*Sealer{NewSealer(secretOf(1)), NewClearSealer()} {
		block, r, err := s.Data(big[:MaxPlain], 0)
		if err != nil || len(block) > MaxBlock {
			t.Fatalf("%d bytes, %v", len(block), err)
		}
		if got, err := OpenData(nil, block, r); err != nil || len(got) != MaxPlain {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if _, _, err := s.Data(big, 0); !errors.Is(err, ErrTooLarge) {
			t.Fatal(err)
		}
	}
	over := Header{KindRaw, Clear, 0}.Append(nil)
	if _, err := OpenData(nil, append(over, big...), ReadKey{}); !errors.Is(err, ErrBlock) {
		t.Fatal(err)
	}
}

func TestChosenRoundTrip(t *testing.T) {
	key, wrong := [32]byte{7}, [32]byte{8}
	nonce := make([]byte, nonce2)
	for i := range nonce {
		nonce[i] = byte(i)
	}
	plain := []byte("a batch")
	block, err := SealChosen(bytes.NewReader(nonce), &key, 24, 5, plain)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := ParseHeader(block); err != nil || h != (Header{24, XChaCha, 5}) {
		t.Fatalf("%+v, %v", h, err)
	}
	if !bytes.Equal(block[HeaderSize:][:nonce2], nonce) {
		t.Fatal("nonce does not come from the reader")
	}
	if got, err := OpenChosen(&key, 24, block); err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := OpenChosen(&key, 25, block); !errors.Is(err, ErrBlock) {
		t.Fatal(err)
	}
	if _, err := OpenChosen(&wrong, 24, block); !errors.Is(err, ErrSeal) {
		t.Fatal(err)
	}
	for i := range len(block) * 8 {
		bad := bytes.Clone(block)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := OpenChosen(&key, 24, bad); err == nil {
			t.Fatalf("bit %d flipped, block opens", i)
		}
	}
	if _, err := SealChosen(bytes.NewReader(nonce[:23]), &key, 24, 0, plain); err == nil {
		t.Fatal("sealed with a short nonce")
	}
	// A derived-key block must not open as one with a chosen key.
	if _, err := OpenChosen(&key, 24, block[:overhead2-1]); !errors.Is(err, ErrBlock) {
		t.Fatal(err)
	}
}

// Known answers fix the format: a change of any byte here needs a new version.
func TestKnownAnswers(t *testing.T) {
	s := NewSealer(secretOf(0x42))
	block, r, _ := s.Data([]byte("hello"), 0)
	m := &Manifest{Root: &Root{Total: 5, Name: "h", Mode: 0o644, Mtime: 1, Chunking: Fixed, ChunkSize: 1 << 20, Inline: []byte("hello")}}
	root, rr, _ := s.Manifest(m, 0)
	for _, c := range []struct{ name, got, want string }{
		{"block", fmt.Sprintf("%x", block), knownBlock},
		{"GUID", BlockGUID(block).String(), knownGUID},
		{"r", fmt.Sprintf("%x", r[:]), knownR},
		{"v", fmt.Sprintf("%x", [32]byte(r.Verify())), knownV},
		{"root GUID", BlockGUID(root).String(), knownRoot},
		{"link", NewLink([32]byte{1, 2, 3, 4}, BlockGUID(root), rr).Text(), knownLink},
	} {
		if c.got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.name, c.got, c.want)
		}
	}
}

func TestKeysStayOutOfLogs(t *testing.T) {
	s, r := secretOf(0xab), ReadKey(secretOf(0xab))
	l := NewLink([32]byte{1}, BlockGUID(nil), r)
	wrapped := struct {
		S Secret
		R ReadKey
		V VerifyKey
		L Link
		C Child
	}{s, r, r.Verify(), l, Child{Read: r}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%d", "%q"} {
		out := fmt.Sprintf(verb, wrapped) + fmt.Sprintf(verb, l)
		low := strings.ToLower(out)
		if strings.Contains(low, "abab") || strings.Contains(low, "171 171") || strings.Contains(low, "0xab, 0xab") ||
			strings.Contains(out, l.Text()) {
			t.Errorf("%s shows a key: %s", verb, out)
		}
	}
}

func TestNewSecret(t *testing.T) {
	s, err := NewSecret(bytes.NewReader(make([]byte, 32)))
	if err != nil || !s.IsZero() {
		t.Fatal(err)
	}
	if _, err := NewSecret(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Fatal("secret from 31 bytes")
	}
	if secretOf(1).ID() == secretOf(2).ID() {
		t.Fatal("two secrets with one id")
	}
}
