package node

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"atoll.example/atoll/internal/transport/p2p"
)

// listen opens the transport. Without addresses of the operator's the node
// keeps the port of its first start: after a power cut that took the whole pool
// down, the members find each other again at the addresses they remember. Only
// if something else has taken the port meanwhile is another one chosen.
func (n *Node) listen() error {
	cfg, err := n.transportConfig()
	if err != nil {
		return err
	}
	if len(cfg.Listen) > 0 {
		n.tr, err = p2p.New(cfg, n.link)
		return err
	}
	b, err := n.home.read(portFile)
	if err != nil {
		return err
	}
	port := parsePort(b)
	for tries := 0; ; tries++ {
		if port == 0 {
			if port, err = freePort(); err != nil {
				return err
			}
		}
		cfg.Listen = cfg.Listen[:0]
		for _, ip := range everywhere(cfg.Loopback) {
			cfg.Listen = append(cfg.Listen, net.JoinHostPort(ip, strconv.Itoa(port)))
		}
		n.tr, err = p2p.New(cfg, n.link)
		if err == nil {
			return n.home.write(portFile, fmt.Appendf(nil, "%d\n", port))
		}
		if !errors.Is(err, p2p.ErrInUse) || tries == 8 {
			return err
		}
		port = 0
	}
}

// parsePort reads the file of the port: 0, to be chosen anew, if it is damaged.
func parsePort(b []byte) int {
	port, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 16)
	if err != nil {
		return 0
	}
	return int(port)
}

// everywhere lists what to listen on where nothing is said: all interfaces, of
// IPv6 too where this machine has an address of it beyond loopback and links.
func everywhere(loopback bool) []string {
	if loopback {
		return []string{"127.0.0.1"}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return []string{"0.0.0.0"}
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsGlobalUnicast() {
			return []string{"0.0.0.0", "::"}
		}
	}
	return []string{"0.0.0.0"}
}

// freePort asks the system for a port that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
