package acceptance

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"
)

// cpuPart is one of the parts that processor time is divided into.
type cpuPart string

// The parts, as TestCPUParts prints them.
const (
	partHash      cpuPart = "hash"       // BLAKE3: names, checksums, keys of chunks
	partCipher    cpuPart = "cipher"     // sealing and opening of chunks at the client
	partTLS       cpuPart = "TLS cipher" // the same ciphers between members: a part of transport
	partTransport cpuPart = "transport"  // libp2p, TLS records, sockets between members
	partDisk      cpuPart = "disk"       // Pebble, block files, reading and writing users' files
	partSignature cpuPart = "signature"  // receipts, certificates
	partProtocol  cpuPart = "protocol"   // all else of ours: overlay, dht, files, local API
	partRuntime   cpuPart = "runtime"    // scheduler, garbage collector
	partOther     cpuPart = "other"
)

var cpuParts = []cpuPart{partHash, partCipher, partTransport, partTLS, partDisk, partSignature, partProtocol, partRuntime, partOther}

// marks tell a frame's part by the beginning of its function's name; the first
// that fits counts. The runtime, system calls, copying and the net package are
// not among them: what they do belongs to who calls them.
var marks = []struct {
	prefix string
	part   cpuPart
}{
	{"github.com/zeebo/blake3", partHash},
	{"atoll.example/atoll/internal/seal.", partCipher},
	{"atoll.example/atoll/internal/transport/", partTransport},
	{"atoll.example/atoll/internal/store/diskstore.", partDisk},
	{"atoll.example/atoll/", partProtocol},
	{"crypto/tls.", partTransport},
	{"github.com/libp2p/", partTransport},
	{"github.com/quic-go/", partTransport},
	{"github.com/multiformats/", partTransport},
	{"github.com/cockroachdb/", partDisk},
	{"os.", partDisk},
	{"net/http.", partProtocol},
}

// ciphers are code that means sealing under internal/seal and TLS elsewhere.
var ciphers = []string{"crypto/aes.", "crypto/cipher.", "crypto/internal/fips140/aes", "crypto/internal/fips140/subtle.", "golang.org/x/crypto/chacha20", "golang.org/x/crypto/internal/poly1305"}

// signatures are code of public keys, which counts as transport in handshakes.
var signatures = []string{"crypto/ed25519.", "crypto/internal/fips140/ed", "crypto/internal/fips140/nistec", "crypto/internal/fips140/ec", "crypto/internal/fips140/sha512"}

// cpuPartOf tells the part of a stack, the innermost function first.
func cpuPartOf(stack []string) cpuPart {
	cipher, signature := false, false
	for _, f := range stack {
		cipher = cipher || hasPrefix(f, ciphers)
		signature = signature || hasPrefix(f, signatures)
		for _, m := range marks {
			if !strings.HasPrefix(f, m.prefix) {
				continue
			}
			switch {
			case cipher && m.part == partTransport:
				return partTLS
			case signature && m.part == partProtocol:
				return partSignature
			}
			return m.part
		}
	}
	for _, f := range stack {
		if !hasPrefix(f, []string{"runtime.", "internal/runtime/"}) {
			return partOther
		}
	}
	return partRuntime
}

func hasPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// cpuByPart sums the processor time of a profile by part.
func cpuByPart(p *profile.Profile) (map[cpuPart]time.Duration, error) {
	at := -1
	for i, t := range p.SampleType {
		if t.Type == "cpu" && t.Unit == "nanoseconds" {
			at = i
		}
	}
	if at < 0 {
		return nil, fmt.Errorf("not a CPU profile: %v", p.SampleType)
	}
	sums := make(map[cpuPart]time.Duration)
	for _, s := range p.Sample {
		var stack []string
		for _, l := range s.Location {
			for _, line := range l.Line { // inlined functions, the innermost first
				stack = append(stack, line.Function.Name)
			}
		}
		sums[cpuPartOf(stack)] += time.Duration(s.Value[at])
	}
	return sums, nil
}

// readProfile adds what a process wrote to sums.
func readProfile(path string, sums map[cpuPart]time.Duration) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	parts, err := cpuByPart(p)
	for part, d := range parts {
		sums[part] += d
	}
	return err
}

// TestCPUPartOf: stacks as profiles of the program have them.
func TestCPUPartOf(t *testing.T) {
	const gcm = "crypto/internal/fips140/aes/gcm.gcmAesEnc"
	for _, c := range []struct {
		want  cpuPart
		stack string
	}{
		{partHash, "github.com/zeebo/blake3/internal/alg/hash/hash_avx2.HashF github.com/zeebo/blake3.(*hasher).update atoll.example/atoll/internal/dht.Name atoll.example/atoll/internal/node.(*loop).run"},
		{partHash, "runtime.memmove github.com/zeebo/blake3.(*Hasher).Write atoll.example/atoll/internal/store/diskstore.check"},
		{partCipher, gcm + " crypto/internal/fips140/aes/gcm.(*GCM).Seal atoll.example/atoll/internal/seal.(*Sealer).Seal atoll.example/atoll/internal/files.(*upload).chunk"},
		{partCipher, "runtime.memmove atoll.example/atoll/internal/seal.(*Sealer).Seal"},
		{partTLS, gcm + " crypto/internal/fips140/aes/gcm.(*GCM).Seal crypto/tls.(*halfConn).encrypt crypto/tls.(*Conn).Write github.com/libp2p/go-yamux/v5.(*Session).sendLoop"},
		{partTransport, "internal/runtime/syscall.Syscall6 syscall.write internal/poll.(*FD).Write net.(*conn).Write crypto/tls.(*Conn).write crypto/tls.(*Conn).writeRecordLocked"},
		{partTransport, "crypto/internal/fips140/nistec.p256MulInternal crypto/ecdh.(*PrivateKey).ECDH crypto/tls.(*clientHandshakeStateTLS13).handshake"},
		{partTransport, "runtime.memmove github.com/libp2p/go-yamux/v5.(*segmentedBuffer).Read atoll.example/atoll/internal/transport/p2p.(*link).read"},
		{partDisk, "internal/runtime/syscall.Syscall6 syscall.Fsync internal/poll.(*FD).Fsync os.(*File).Sync github.com/cockroachdb/pebble/v2/vfs.unixFile.Sync atoll.example/atoll/internal/store/diskstore.(*Store).commit"},
		{partDisk, "runtime.memmove github.com/cockroachdb/pebble/v2/record.(*LogWriter).emitFragment"},
		{partDisk, "internal/runtime/syscall.Syscall6 syscall.pread internal/poll.(*FD).Pread os.(*File).ReadAt atoll.example/atoll/internal/files.(*source).chunk"},
		{partProtocol, "internal/runtime/syscall.Syscall6 syscall.read internal/poll.(*FD).Read net.(*conn).Read net/http.(*connReader).Read bufio.(*Reader).Read"},
		{partSignature, "crypto/internal/fips140/edwards25519/field.feMul crypto/ed25519.Verify atoll.example/atoll/internal/ident.Verify"},
		{partProtocol, "runtime.mallocgc runtime.makeslice atoll.example/atoll/internal/dht.(*Node).Step"},
		{partRuntime, "runtime.futex internal/runtime/atomic.(*Uint32).Load runtime.schedule runtime.mcall"},
		{partRuntime, "runtime.scanobject runtime.gcDrain runtime.gcBgMarkWorker"},
		{partOther, "strconv.ParseInt main.main"},
	} {
		if got := cpuPartOf(strings.Fields(c.stack)); got != c.want {
			t.Errorf("%s: %s, want %s", c.stack, got, c.want)
		}
	}
}
