package cli

import (
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"
)

// Variables for those who look into the program: they are no settings.
const (
	// profileEnv names a file to which the process writes its CPU profile, in
	// the form that "go tool pprof" reads.
	profileEnv = "ATOLL_CPUPROFILE"
	// clockEnv is what is added to the wall clock of a node.
	clockEnv = "ATOLL_CLOCK_OFFSET"
)

func clockOffset() (time.Duration, error) {
	text := os.Getenv(clockEnv)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not an offset: write 90s, -1h or the like", clockEnv, text)
	}
	return d, nil
}

// profiled does work under a CPU profile if one is asked for.
func profiled(stderr io.Writer, work func() int) int {
	path := os.Getenv(profileEnv)
	if path == "" {
		return work()
	}
	stop, err := startProfile(path)
	if err != nil {
		fmt.Fprintf(stderr, "atoll: %s: %v\n", profileEnv, err)
		return 1
	}
	code := work()
	if err := stop(); err != nil {
		fmt.Fprintf(stderr, "atoll: %s: %v\n", profileEnv, err)
		return 1
	}
	return code
}

// startProfile begins a CPU profile of the process; stop ends and writes it.
func startProfile(path string) (stop func() error, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close() // empty
		return nil, err
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}
