package sim

import (
	"runtime/debug"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // runs are small and allocate all the time: an eighth less of the processor
	goleak.VerifyTestMain(m)
}
