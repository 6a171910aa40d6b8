package machinetest

import (
	"os"
	"testing"
)

// Skip leaves a test out for want of what why names. Where everything is required
// (ATOLL_REQUIRE=all, as in CI), the want is a failure.
func Skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("ATOLL_REQUIRE") == "all" {
		t.Fatal("required, and not there: " + why)
	}
	t.Skip("not run: " + why)
}
