package diskstore

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// holdDir makes the test binary another process that holds a store open.
const holdDir = "DISKSTORE_TEST_HOLD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdDir); dir != "" {
		hold(dir)
		return
	}
	// Pebble's own, when its Open fails late or is left behind; stores that are not
	// closed show goroutines of ours.
	const pebble = "github.com/cockroachdb/pebble/v2"
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(pebble+".Open"),
		goleak.IgnoreTopFunction(pebble+".(*ConcurrencyLimitScheduler).periodicGranter"),
		goleak.IgnoreTopFunction(pebble+".(*cleanupManager).mainLoop"),
		goleak.IgnoreTopFunction(pebble+"/internal/genericcache.(*shard[...]).releaseLoop"))
}

// hold opens a store, says so, and keeps it until its standard input ends.
func hold(dir string) {
	s, err := Open(dir, Options{Pool: testPool, Limit: 1 << 30})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("open")
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // end of input is the signal
	if err := s.Close(); err != nil {
		os.Exit(1)
	}
}
