package files

import "testing"

// TestPutOfMoreThanItsSize: a file that says it is empty, and is not, is never
// stored as an empty one.
func TestPutOfMoreThanItsSize(t *testing.T) {
	p := newPool()
	c := open(t, p, t.TempDir())
	if _, err := c.PutFile(t.Context(), PutRequest{Path: "/proc/self/status"}); !hasCode(err, "changed") || len(p.guids()) != 0 {
		t.Errorf("%v, %d blocks", err, len(p.guids()))
	}
}
