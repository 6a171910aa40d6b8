// Atoll is a peer-to-peer storage system in one program: a node, and the
// commands that talk to it.
package main

import (
	"os"

	"atoll.example/atoll/internal/cli"
	"atoll.example/atoll/internal/daemon"
)

func main() {
	os.Exit(cli.Main(daemon.Hooks()))
}
