package arch

// The rows of the program, top to bottom. A package may import any package of a
// lower row, and of its own row those that an arrow names. Packages that do not
// exist yet have their place already.
var rows = []row{
	{name: "faces", packages: `
		atoll            -> internal/service internal/api
		cmd/atoll        -> internal/cli internal/daemon
		internal/daemon  -> internal/cli internal/service internal/api
		internal/service -> internal/api
		internal/cli     -> internal/api internal/web internal/mount/fuse internal/mount/nfs3 internal/andrew
		internal/web     -> internal/api
		internal/api
		internal/mount/fuse
		internal/mount/nfs3
		internal/andrew
		internal/acceptance
	`},
	{name: "hosts", packages: `
		internal/node
		internal/sim
	`},
	// api sees nothing of node: service is where the two meet.

	{name: "files", packages: `
		internal/files
		internal/ocean
		internal/ivy
	`},
	{name: "adapters", packages: `
		internal/transport/p2p
		internal/transport/memnet
		internal/transport/foreign
		internal/store/diskstore
		internal/store/memstore
		internal/library/scan
		internal/transfer
		internal/cputime
	`},

	// ══════ pure below: no goroutine, lock, clock, socket, disk ══════

	{name: "stack", pure: true, packages: `
		internal/stack
	`},
	{name: "services", pure: true, packages: `
		internal/overlay/pastry   -> internal/overlay/ring
		internal/overlay/tapestry -> internal/overlay/ring
		internal/overlay/ring
		internal/dht
		internal/dolr
		internal/napster
		internal/gnutella
		internal/kwindex
		internal/swarm
		internal/ocean/primary
	`},
	{name: "contracts", pure: true, packages: `
		internal/kbr
	`},
	{name: "tools", pure: true, packages: `
		internal/machine
		internal/ident
		internal/roster    -> internal/machine internal/ident
		internal/seal
		internal/erasure
		internal/library
		internal/transport
		internal/store
		internal/vfs
	`},
	{name: "values", pure: true, packages: `
		internal/wire  -> internal/id
		internal/trace -> internal/id
		internal/id
	`},
}

// ports tell what adapters do: they may name a context and a channel.
var ports = words(`internal/transport internal/store internal/vfs`)

// Kits help tests: they sit beside the package they are for (machine/machinetest
// beside machine), may import what it may, the package itself and other kits, and
// need not be pure. Only tests and kits import them.
const kitSuffix = "test"

// What pure packages may import from outside.
var pureImports = words(`
	bytes cmp container/heap container/list errors fmt hash hash/crc32 hash/fnv io iter maps math math/big math/bits
	math/rand/v2 slices sort strconv strings time unicode unicode/utf16 unicode/utf8
	crypto/aes crypto/cipher crypto/ed25519 crypto/hmac crypto/sha1 crypto/sha256 crypto/subtle
	encoding/base32 encoding/base64 encoding/binary encoding/hex
	github.com/zeebo/blake3 golang.org/x/crypto/chacha20poly1305
	github.com/klauspost/compress/zstd github.com/klauspost/reedsolomon
`)

// Of these imports, pure packages may use only what is listed, or must not use
// what is listed after a minus.
var pureUse = map[string]string{
	"time":         "- Now Since Until Sleep After AfterFunc Tick NewTicker NewTimer Local LoadLocation",
	"fmt":          "- Print Printf Println Scan Scanf Scanln",
	"math/rand/v2": "New NewPCG NewChaCha8 Rand PCG ChaCha8 Source",
}
