package daemon

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"atoll.example/atoll/internal/api"
	"atoll.example/atoll/internal/ident"
	"atoll.example/atoll/internal/store"
	"atoll.example/atoll/internal/transport/p2p"
)

// listener is net.Listener under a name that reads well in a signature.
type listener = net.Listener

// startError gives what can go wrong at the start of a node a code of 20-dht §8.
func startError(err error) error {
	if err == nil {
		return nil
	}
	var coded interface{ Code() string }
	var known *api.Error
	switch {
	case errors.As(err, &known), errors.As(err, &coded):
		return err
	case errors.Is(err, p2p.ErrInUse), errors.Is(err, syscall.EADDRINUSE):
		return api.Errorf(api.PortInUse, "", "", "%s; choose another port with --listen", plain(err))
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return api.Errorf(api.BadRequest, "", "", "%s: this machine does not have that address; choose another with --listen", plain(err))
	case errors.Is(err, p2p.ErrBadAddr):
		return api.Errorf(api.BadRequest, "", "", "%s", plain(err))
	case errors.Is(err, store.ErrInUse):
		return api.Errorf(api.DirInUse, "", "", "%w", err)
	case errors.Is(err, store.ErrFormat):
		return api.Errorf(api.BadDir, "", "", "%w", err)
	case errors.Is(err, store.ErrFailed):
		return api.Errorf(api.DiskFailed, "", "", "%w", err)
	case errors.Is(err, store.ErrFull):
		return api.Errorf(api.Full, "", "", "%w", err)
	}
	if c := ident.Code(err); c != api.Internal {
		return api.Errorf(c, "", "", "%w", err)
	}
	if errors.Is(err, syscall.EMFILE) {
		return fmt.Errorf("%w; raise how many this process may open (ulimit -n 1024)", err)
	}
	return err
}

// plain is the text of an error without the name of the package it is from.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "p2p: ") }
