package node

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"atoll.example/atoll/internal/dht"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/overlay/pastry"
	"atoll.example/atoll/internal/transport/p2p"
)

// Config is what a node is started with. The zero value of each field but Dir
// means its default.
type Config struct {
	// Dir is the node's folder: keys, store, routing table. It is made if it
	// does not exist.
	Dir string

	// Name is shown to people; default the host's name. Domain is the failure
	// domain: two copies avoid one domain; default the host, so that two
	// nodes on one machine count as one place. Both are fixed at join.
	Name, Domain string

	// Listen are addresses as p2p.ParseListen takes them; default all
	// interfaces, of IPv6 too where the machine has an address of it, TCP and
	// QUIC, on a port chosen at the first start and kept.
	Listen []string
	// Announce are addresses to tell others first: of a port forwarded by hand.
	Announce []string
	// Loopback keeps the node on this machine. Listen, if given, must then name
	// loopback addresses.
	Loopback bool
	// NoQUIC, NoRelay and NoHolePunch turn these off.
	NoQUIC, NoRelay, NoHolePunch bool
	// MDNS announces the node on the local network, by multicast DNS, and
	// finds members there whose remembered addresses are old.
	MDNS bool

	// Version is that of the program, which the other members show. Default:
	// none is told.
	Version string

	// Limit is what the store may take, in bytes; default 80 % of what is
	// free at the first start, later what was granted last.
	Limit int64

	// Preset is lan (default), wan or local: heartbeats of 5, 75 and 1 s.
	Preset Preset
	// Grace is how long a lost copy may come back before it is replaced;
	// default 15 min, local 1 s.
	Grace time.Duration
	// JoinTimeout bounds the questions of a join; default 30 s.
	JoinTimeout time.Duration

	// Log gets what an operator may want to see. Default: nothing.
	Log *slog.Logger

	// Wall reads the wall clock in Unix ms. Default: the system's. A test
	// sets a clock that is wrong.
	Wall func() int64

	// Distort gives the frame to send instead, nil for none. Default: the
	// frame. A test makes a member that lies or withholds.
	Distort func(bulk bool, frame []byte) []byte
}

// Preset is a set of timing parameters (10-overlay §3.9).
type Preset string

// Presets.
const (
	LAN   Preset = "lan"
	WAN   Preset = "wan"
	Local Preset = "local"
)

// Validate returns the first fault.
func (c *Config) Validate() error {
	switch c.Preset {
	case "", LAN, WAN, Local:
	default:
		return fmt.Errorf("preset %q: want lan, wan or local", c.Preset)
	}
	if c.Dir == "" {
		return errors.New("no folder given for the node")
	}
	if err := ident.CheckLabel(c.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if err := ident.CheckLabel(c.Domain); err != nil {
		return fmt.Errorf("domain: %w", err)
	}
	for _, l := range c.Listen {
		addrs, err := p2p.ParseListen(l, !c.NoQUIC)
		if err != nil {
			return err
		}
		if c.Loopback && !p2p.IsLoopback(addrs[0]) { // all are of one host
			return fmt.Errorf("%w: %q: the node is to stay on this machine (--loopback): listen on 127.0.0.1, or leave out one of the two", p2p.ErrBadAddr, l)
		}
	}
	if c.Grace < 0 || c.JoinTimeout < 0 {
		return errors.New("a duration is negative")
	}
	return nil
}

func systemClock() int64 { return time.Now().UnixMilli() }

func (c Config) fill() Config {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "node"
	}
	if c.Name == "" {
		c.Name = ident.Label(host)
	}
	if c.Domain == "" {
		c.Domain = ident.Label("host-" + host)
	}
	if c.Preset == "" {
		c.Preset = LAN
	}
	if c.JoinTimeout == 0 {
		c.JoinTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Wall == nil {
		c.Wall = systemClock
	}
	return c
}

// machines are the settings of the two protocols under the preset.
func (c *Config) machines() (pastry.Config, dht.Config) {
	ring, store := pastry.LAN(), dht.LAN()
	switch c.Preset {
	case WAN:
		ring = pastry.WAN()
	case Local:
		ring, store = pastry.Local(), dht.Local()
	}
	if c.Grace > 0 {
		store.Grace = machine.Duration(c.Grace.Microseconds())
	}
	return ring, store
}
