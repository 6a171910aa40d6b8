package p2p

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/zeebo/blake3"

	"atoll.example/atoll/internal/id"
)

// Multicast DNS, off unless Discover is called. A node tells the local network
// where it listens, and listens itself at its start and as long as it has no
// link: that is when the addresses it remembers may all be old. What it hears
// makes no connection by itself. It is a further place to try when this node
// wants to reach a peer, whose key must be proved there as anywhere.
//
// go-libp2p's own discovery/mdns is built on the same library, but announces
// every interface, never again after an address has changed, and lets others
// fill its memory (see listenRound).
const (
	mdnsDomain = "local"
	mdnsText   = "dnsaddr=" // in front of a multiaddr, as libp2p has it
	// maxMDNSText is a little more than an address with IPv6, QUIC and key.
	maxMDNSText = 160
	// mdnsRound is how long one search lasts: queries go out after 0, 4 and
	// about 12 and 28 s.
	mdnsRound = time.Minute
	// mdnsLook is the pause between looks whether there is a reason to search
	// or an address has changed.
	mdnsLook = 5 * time.Second
	// sightedTime is how long what was heard is tried.
	sightedTime = 10 * time.Minute
	// maxHeard bounds the entries taken in one round, of which hostile ones
	// may be any number; maxSighted the peers remembered.
	maxHeard   = 1024
	maxSighted = 256
)

// serviceName is what members of a pool announce and search. It must be the
// same at all of them without a word spoken, so it cannot be random; and all
// on the local network can read it, so it is a hash under its own tag, from
// which nobody learns the pool's id. 70 bits of it fill the 15 letters that
// RFC 6763 §7 leaves.
func serviceName(pool [32]byte) string {
	sum := blake3.Sum256(append([]byte("atoll/mdns/1"), pool[:]...))
	return "_a" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:14]) + "._udp"
}

// sightings are addresses of peers that multicast DNS has told.
type sightings struct {
	mu   sync.Mutex
	seen map[[32]byte]sighting
}

type sighting struct {
	addrs []ma.Multiaddr // the newest first, at most id.MaxAddrs
	until time.Time
}

// add notes where a peer was seen. It returns false if that is not new.
func (s *sightings) add(key [32]byte, m ma.Multiaddr, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.seen[key]
	if !ok && len(s.seen) >= maxSighted {
		return false
	}
	known := ma.Contains(old.addrs, m)
	list := append([]ma.Multiaddr{m}, ma.FilterAddrs(slices.Clone(old.addrs), func(o ma.Multiaddr) bool { return !o.Equal(m) })...)
	if s.seen == nil {
		s.seen = map[[32]byte]sighting{}
	}
	s.seen[key] = sighting{addrs: list[:min(len(list), id.MaxAddrs)], until: now.Add(sightedTime)}
	return !known
}

func (s *sightings) of(key [32]byte) []ma.Multiaddr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[key].addrs
}

func (s *sightings) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.seen {
		if now.After(v.until) {
			delete(s.seen, k)
		}
	}
}

// Discover begins to announce this node to others of the pool on the local
// network, and to listen for them, until Close. The announcement shows the
// node's key and addresses to all who are on that network. What is heard of a
// peer is kept if member says that the key is a member's, and if the address
// is in a subnet of one of our interfaces, or loopback where that may be
// dialled. Call it once.
func (t *Transport) Discover(pool [32]byte, member func(key [32]byte) bool) {
	if t.enter() {
		go t.discover(serviceName(pool), member)
	}
}

func (t *Transport) discover(service string, member func([32]byte) bool) {
	defer t.wg.Done()
	var (
		told   []ma.Multiaddr
		server *zeroconf.Server
		warned bool
		first  = true
	)
	defer func() {
		if server != nil {
			server.Shutdown()
		}
	}()
	for {
		if list := t.directAddrs(); server == nil || !slices.EqualFunc(list, told, ma.Multiaddr.Equal) {
			if server != nil {
				server.Shutdown()
			}
			var err error
			if server, err = t.announce(service, list); err != nil && !warned {
				warned = true
				t.log.Warn("cannot announce this node on the local network; will try again", "err", err)
			}
			told = list
		}
		if first || t.Stats().Links == 0 {
			if err := t.listenRound(service, member); err != nil {
				t.log.Debug("multicast DNS", "err", err)
			}
		}
		first = false
		if !t.pause(mdnsLook, nil) {
			return
		}
	}
}

// segments are the network interfaces to use.
func (t *Transport) segments() ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(all, func(i net.Interface) bool {
		return i.Flags&net.FlagUp == 0 || i.Flags&net.FlagMulticast == 0 || t.cfg.Loopback && i.Flags&net.FlagLoopback == 0
	})
	if len(out) == 0 {
		return nil, errNoMulticast
	}
	return out, nil
}

var errNoMulticast = errors.New("no network interface that is up takes multicast")

// announce tells the local network under which of list this node is reached.
func (t *Transport) announce(service string, list []ma.Multiaddr) (*zeroconf.Server, error) {
	on, err := t.segments()
	if err != nil {
		return nil, err
	}
	var ips, text []string
	for _, m := range list[:min(len(list), id.MaxAddrs)] {
		ip, _ := ipOf(m)
		if s := ip.String(); !slices.Contains(ips, s) {
			ips = append(ips, s)
		}
		text = append(text, mdnsText+m.String()+"/p2p/"+t.h.ID().String())
	}
	if len(text) == 0 {
		return nil, errNoAddr
	}
	// A new name each time: it is of no use but to follow the node around.
	name := strings.ToLower(rand.Text())
	const port = 4001 // the record needs one; it is the texts that count
	return zeroconf.RegisterProxy(name, service, mdnsDomain, port, name, ips, text, on, zeroconf.TTL(uint32(sightedTime/time.Second)))
}

// listenRound searches for mdnsRound. The library remembers whatever is told
// under our name for as long as the teller wishes, so the round, and with it
// that memory, ends early when more is told than a pool would have to say.
// Over IPv4 only, which carries addresses of both kinds: without IPv6 the
// library could not begin.
func (t *Transport) listenRound(service string, member func([32]byte) bool) error {
	on, err := t.segments()
	if err != nil {
		return err
	}
	if !t.enter() {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, mdnsRound)
	defer cancel()
	heard := make(chan *zeroconf.ServiceEntry)
	over := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer t.wg.Done()
		defer close(done)
		t.listen(heard, over, cancel, member)
	}()
	err = zeroconf.Browse(ctx, service, mdnsDomain, heard, zeroconf.SelectIPTraffic(zeroconf.IPv4), zeroconf.SelectIfaces(on))
	close(over)
	<-done
	return err
}

// listen takes what is heard until the round is over. It goes on reading after
// it has had enough, since the library waits for it.
func (t *Transport) listen(heard <-chan *zeroconf.ServiceEntry, over <-chan struct{}, enough func(), member func([32]byte) bool) {
	for n := 0; ; n++ {
		select {
		case e, ok := <-heard:
			switch {
			case !ok:
				return
			case n >= maxHeard:
				enough()
			default:
				t.sighted(e.Text, member)
			}
		case <-over:
			return
		}
	}
}

// sighted takes one announcement, which anybody may have made.
func (t *Transport) sighted(text []string, member func([32]byte) bool) {
	for _, s := range text[:min(len(text), id.MaxAddrs)] {
		s, ok := strings.CutPrefix(s, mdnsText)
		if !ok || len(s) > maxMDNSText {
			continue
		}
		full, err := ma.NewMultiaddr(s)
		if err != nil {
			continue
		}
		m, pid := peer.SplitAddr(full)
		key, ok := keyOf(pid)
		if !ok || key == t.key || !t.reach.near(m) || !member(key) {
			continue
		}
		if t.seen.add(key, m, time.Now()) {
			t.retry(key)
		}
	}
}

// retry dials a peer at once for which frames wait.
func (t *Transport) retry(key [32]byte) {
	t.mu.Lock()
	p := t.remotes[key]
	t.mu.Unlock()
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dialing {
		p.fails, p.next = 0, time.Time{}
		p.nudge()
	}
}
