// Package acceptance holds the tests that run the real program in real
// processes: what the README promises, seen as a user sees it. Each has a small
// size, which "go test ./..." runs, and a full one, which prints the figures:
//
//	go test ./internal/acceptance -run Survival -full -v -timeout 30m
//
// Everything binds to loopback, and every process is ended by its pid. Full disks
// are small file systems, which take root to mount.
package acceptance
