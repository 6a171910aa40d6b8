package cli

import (
	"fmt"
	"io"
	"os"
	"runtime/pprof"
)

// profileEnv names a file to which the process writes its CPU profile, in the
// form that "go tool pprof" reads. It is for measuring, so it is no setting.
const profileEnv = "ATOLL_CPUPROFILE"

// profiled does work under a CPU profile if one is asked for.
func profiled(stderr io.Writer, work func() int) int {
	path := os.Getenv(profileEnv)
	if path == "" {
		return work()
	}
	f, err := os.Create(path)
	if err == nil {
		err = pprof.StartCPUProfile(f)
	}
	if err != nil {
		fmt.Fprintf(stderr, "atoll: %s: %v\n", profileEnv, err)
		return 1
	}
	code := work()
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		fmt.Fprintf(stderr, "atoll: %s: %v\n", profileEnv, err)
		return 1
	}
	return code
}
