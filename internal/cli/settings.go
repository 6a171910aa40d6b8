package cli

import (
	"strings"

	"atoll.example/atoll/internal/id"
)

// kind is what a setting's text must look like.
type kind string

const (
	kindText     kind = "text"
	kindNumber   kind = "number"
	kindTruth    kind = "true/false"
	kindSize     kind = "size"
	kindDuration kind = "duration"
	kindList     kind = "list"
	kindShare    kind = "fraction"
)

// setting is one row of the table from which flags, environment variables,
// keys of the file and docs/config.md all come.
type setting struct {
	key      string // in atoll.toml; "put.k" is k in the table [put]
	commands string // that have the flag, separated by commas; empty: all
	flag     string
	short    string
	kind     kind
	least    int64  // of a number, the smallest
	most     int64  // of a number, the greatest; 0: no bound
	def      string // as one would write it; empty where the meaning says what happens
	unit     string
	meaning  string
	later    bool // a flag of the contract whose part is not built yet
}

// env is the name of the setting's environment variable.
func (s setting) env() string {
	return "ATOLL_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_", " ", "_").Replace(s.key))
}

func (s setting) of(command string) bool {
	if s.commands == "" {
		return true
	}
	for _, c := range strings.Split(s.commands, ",") {
		if c == command {
			return true
		}
	}
	return false
}

// settings is the table.
var settings = []setting{
	{key: "dir", flag: "dir", kind: kindText, meaning: "folder of the node; default: atoll in the user's data directory"},
	{key: "json", flag: "json", kind: kindTruth, def: "false", meaning: "print results and errors as JSON"},
	{key: "quiet", flag: "quiet", kind: kindTruth, def: "false", meaning: "no progress and no remarks on standard error"},
	{key: "timeout", flag: "timeout", kind: kindDuration, unit: "time", meaning: "give up after so long, but for up and join; default: never"},

	{key: "nodes", commands: "up,join", flag: "nodes", kind: kindNumber, least: 1, most: 256, def: "1", unit: "nodes", meaning: "nodes in this process; with more than one, each has its folder DIR/node-1, DIR/node-2 …"},
	{key: "name", commands: "up,join", flag: "name", kind: kindText, meaning: "name of the node, for people; default: the host's"},
	{key: "domain", commands: "up,join", flag: "domain", kind: kindText, meaning: "failure domain: copies of a block avoid sharing one; default: the host"},
	{key: "listen", commands: "up,join", flag: "listen", kind: kindList, unit: "addresses", meaning: "addresses to listen on, such as 0.0.0.0:4001; default: all interfaces, a free port that is kept"},
	{key: "announce", commands: "up,join", flag: "announce", kind: kindList, unit: "addresses", meaning: "addresses to tell others first, such as that of a forwarded port"},
	{key: "loopback", commands: "up,join", flag: "loopback", kind: kindTruth, def: "false", meaning: "stay on this machine: listen on and connect to loopback addresses only"},
	{key: "limit", commands: "up,join", flag: "limit", kind: kindSize, unit: "bytes", meaning: "disk space to give to the pool, at least 256MiB; default: 80 % of what is free at the first start"},
	{key: "memory", commands: "up,join", flag: "memory", kind: kindSize, unit: "bytes", meaning: "memory that the process keeps below as far as it can, at least 64MiB; default: GOMEMLIMIT, else 320MiB a node, and more where its index needs it"},
	{key: "preset", commands: "up,join", flag: "preset", kind: kindText, def: "lan", meaning: "timing: lan (heartbeat every 5 s) or wan (every 75 s)"},
	{key: "grace", commands: "up,join", flag: "grace", kind: kindDuration, unit: "time", meaning: "how long a lost copy may come back before it is replaced; default: 15m"},
	{key: "quic", commands: "up,join", flag: "quic", kind: kindTruth, def: "true", meaning: "use QUIC beside TCP"},
	{key: "relay", commands: "up,join", flag: "relay", kind: kindTruth, def: "true", meaning: "reach and be reached through other members where no direct way is found"},
	{key: "hole-punch", commands: "up,join", flag: "hole-punch", kind: kindTruth, def: "true", meaning: "open direct ways through address translators"},
	{key: "mdns", commands: "up,join", flag: "mdns", kind: kindTruth, def: "false", meaning: "announce the node on the local network by multicast DNS, and find members there whose addresses have changed"},
	{key: "log", commands: "up,join", flag: "log", kind: kindText, def: "info", meaning: "what to log on standard error: off, info or debug"},
	{key: "pool", commands: "up", flag: "pool", kind: kindText, def: "atoll", meaning: "name of the pool made on first use"},
	{key: "k", commands: "up", flag: "k", kind: kindNumber, least: 1, most: 8, def: "3", unit: "copies", meaning: "copies of each block in the pool made on first use, 1 to 8"},
	{key: "overlay", commands: "up", flag: "overlay", kind: kindText, def: "pastry", meaning: "routing overlay of the pool made on first use"},
	{key: "web", commands: "up", flag: "web", kind: kindText, meaning: "address of the dashboard", later: true},
	{key: "detach", commands: "up", flag: "detach", kind: kindTruth, def: "false", meaning: "run in the background", later: true},

	{key: "invite.role", commands: "invite", flag: "role", kind: kindText, def: "member", meaning: "what who joins may do: member, or admin, who invites and revokes"},
	{key: "invite.uses", commands: "invite", flag: "uses", kind: kindNumber, least: 1, most: 1000, def: "1", unit: "joins", meaning: "how many nodes may join by it"},
	{key: "invite.ttl", commands: "invite", flag: "ttl", kind: kindDuration, def: "24h", unit: "time", meaning: "how long it is good"},
	{key: "invite.quota", commands: "invite", flag: "quota", kind: kindSize, def: "0", unit: "bytes", meaning: "what who joins may store; 0: no limit"},

	{key: "status.watch", commands: "status", flag: "watch", kind: kindTruth, def: "false", meaning: "print it again every 2 s until Ctrl-C"},

	{key: "revoke.reason", commands: "revoke", flag: "reason", kind: kindText, meaning: "kept in the roster, for people"},
	{key: "revoke.yes", commands: "revoke", flag: "yes", kind: kindTruth, def: "false", meaning: "do not ask"},
	{key: "leave.reason", commands: "leave", flag: "reason", kind: kindText, meaning: "kept in the roster, for people"},
	{key: "leave.last-admin", commands: "leave", flag: "last-admin", kind: kindTruth, def: "false", meaning: "leave although no other admin answers: nobody may ever be invited or revoked again"},
	{key: "leave.yes", commands: "leave", flag: "yes", kind: kindTruth, def: "false", meaning: "do not ask"},

	{key: "put.name", commands: "put", flag: "name", kind: kindText, meaning: "name of the file in the pool; default: that of FILE"},
	{key: "put.unique", commands: "put", flag: "unique", kind: kindTruth, def: "false", meaning: "seal with a fresh secret: share no block with your other files"},
	{key: "put.clear", commands: "put", flag: "clear", kind: kindTruth, def: "false", meaning: "do not seal: every member can read it"},
	{key: "put.k", commands: "put", flag: "k", kind: kindNumber, most: 8, def: "0", unit: "copies", meaning: "copies of each block, 1 to 8; 0: the pool's"},
	{key: "put.w", commands: "put", flag: "w", kind: kindNumber, most: 8, def: "0", unit: "copies", meaning: "synced copies to wait for; 0: the pool's write quorum"},
	{key: "put.no-resume", commands: "put", flag: "no-resume", kind: kindTruth, def: "false", meaning: "begin anew, even where an earlier try was interrupted"},
	{key: "put.chunk", commands: "put", flag: "chunk", kind: kindText, meaning: "how to cut the file", later: true},
	{key: "put.ttl", commands: "put", flag: "ttl", kind: kindDuration, meaning: "when to let go of the file", later: true},

	{key: "get.output", commands: "get", flag: "output", short: "o", kind: kindText, meaning: "file or folder to write to, or - for standard output; default: the file's own name, here"},
	{key: "get.force", commands: "get", flag: "force", kind: kindTruth, def: "false", meaning: "replace a file that exists"},
	{key: "get.range", commands: "get", flag: "range", kind: kindText, meaning: "part of the file to get", later: true},

	{key: "ls.long", commands: "ls", flag: "long", short: "l", kind: kindTruth, def: "false", meaning: "with size, time and link; a link is a secret"},

	{key: "verify.all", commands: "verify", flag: "all", kind: kindTruth, def: "false", meaning: "everything in the catalogue"},
	{key: "verify.deep", commands: "verify", flag: "deep", kind: kindTruth, def: "false", meaning: "let every holder prove its bytes"},
	{key: "repair.all", commands: "repair", flag: "all", kind: kindTruth, def: "false", meaning: "everything in the catalogue"},
	{key: "repair.deep", commands: "repair", flag: "deep", kind: kindTruth, def: "false", meaning: "let every holder prove its bytes"},

	{key: "table.rows", commands: "table", flag: "rows", kind: kindNumber, least: 1, most: id.Digits, def: "4", unit: "rows", meaning: "rows to print, from row 0"},

	{key: "dht.sign", commands: "dht put,dht remove", flag: "sign", kind: kindText, meaning: "private key file that names and signs the block, such as DIR/owner.key"},
	{key: "dht.salt", commands: "dht put,dht remove", flag: "salt", kind: kindText, unit: "up to 64 bytes", meaning: "tells signed blocks of one key apart"},
	{key: "dht.seq", commands: "dht put,dht remove", flag: "seq", kind: kindNumber, def: "0", meaning: "number of this value; 0: the next"},
	{key: "dht.cas", commands: "dht put,dht remove", flag: "cas", kind: kindText, unit: "number", meaning: "number that the stored value must have, 0 for none; default: any lower"},
	{key: "dht.any", commands: "dht get", flag: "any", kind: kindTruth, def: "false", meaning: "take the first valid value of a signed block, not the newest"},

	{key: "sim.scenario", commands: "sim", flag: "scenario", kind: kindText, meaning: "scenario to run"},
	{key: "sim.seeds", commands: "sim,sim overlay", flag: "seeds", kind: kindNumber, least: 1, def: "1", unit: "runs", meaning: "run so many seeds, from --seed on, and sum up"},
	{key: "sim.quick", commands: "sim", flag: "quick", kind: kindTruth, def: "false", meaning: "a smaller run"},
	{key: "sim.shrink", commands: "sim", flag: "shrink", kind: kindTruth, def: "false", meaning: "find a small part of a failing run that still fails, and write it to SCENARIO-SEED.json in --out, or here"},
	{key: "sim.only", commands: "sim", flag: "only", kind: kindText, meaning: "file that --shrink wrote: run that"},
	{key: "sim.seed", commands: "sim,sim overlay,sim figures", flag: "seed", kind: kindNumber, def: "1", meaning: "seed of all randomness: the same seed gives the same run"},
	{key: "sim.commit", commands: "sim,sim overlay", flag: "commit", kind: kindText, meaning: "commit that a seed was found with: a warning if this program is of another"},
	{key: "sim.out", commands: "sim,sim overlay,sim figures", flag: "out", kind: kindText, meaning: "folder to write the result to, as JSON and as text"},
	{key: "sim.profile", commands: "sim,sim overlay", flag: "profile", kind: kindText, meaning: "file to write a CPU profile of the run to, for \"go tool pprof\""},
	{key: "sim.trace", commands: "sim,sim overlay", flag: "trace", kind: kindText, meaning: "file to write every event, message and fault to, a line each"},
	{key: "sim.engine", commands: "sim overlay", flag: "engine", kind: kindText, def: "pastry", meaning: "routing overlay"},
	{key: "sim.nodes", commands: "sim overlay", flag: "nodes", kind: kindNumber, least: 1, def: "1000", unit: "nodes", meaning: "nodes in the mean"},
	{key: "sim.topology", commands: "sim overlay", flag: "topology", kind: kindText, def: "sphere", meaning: "delays between nodes: sphere (150 ms antipodal) or lan"},
	{key: "sim.churn", commands: "sim overlay", flag: "churn", kind: kindText, def: "poisson:30m", meaning: "comings and goings: none, or poisson and the mean session"},
	{key: "sim.loss", commands: "sim overlay", flag: "loss", kind: kindShare, def: "0.05", unit: "0 to 0.5", meaning: "share of messages lost"},
	{key: "sim.lookups", commands: "sim overlay", flag: "lookups", kind: kindShare, def: "0.01", unit: "1/s", meaning: "lookups a second by each node"},
	{key: "sim.for", commands: "sim overlay", flag: "for", kind: kindDuration, def: "2h", unit: "virtual time", meaning: "length of the measured part"},
	{key: "sim.leaf-only", commands: "sim overlay", flag: "leaf-only", kind: kindTruth, def: "false", meaning: "route with leaf sets alone, as in Figure 10.6"},
	{key: "sim.width", commands: "sim overlay", flag: "width", kind: kindText, meaning: "width of rows", later: true},
	{key: "sim.build", commands: "sim overlay", flag: "build", kind: kindText, meaning: "how the ring is made", later: true},

	{key: "doctor.backup", commands: "doctor", flag: "backup", kind: kindText, meaning: "file to save catalogue, keys and secret to"},
	{key: "doctor.restore", commands: "doctor", flag: "restore", kind: kindText, meaning: "file to restore them from; the node must not run"},
	{key: "doctor.accept-disk", commands: "doctor", flag: "accept-disk", kind: kindTruth, def: "false", meaning: "trust a disk again that has failed, once every block on it is read back"},
	{key: "doctor.release", commands: "doctor", flag: "release", kind: kindTruth, meaning: "free what is in quarantine", later: true},

	{key: "demo.exit", commands: "demo", flag: "exit", kind: kindTruth, def: "false", meaning: "end when done instead of serving until Ctrl-C"},
	{key: "demo.web", commands: "demo", flag: "web", kind: kindTruth, meaning: "serve the dashboard", later: true},
}
