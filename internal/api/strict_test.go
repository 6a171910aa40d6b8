package api

import (
	"encoding/json"
	"testing"
)

// What passes the strict decoder is JSON that says everything once: read
// loosely it gives the same value.
func FuzzDecodeStrict(f *testing.F) {
	for _, s := range []string{`{}`, `{"key":"/a","salt":"AA==","seq":1,"cas":null,"value":""}`, `{"key":"a","KEY":"b"}`, `{"a":[{"a":1},{"a":2}]}`, `[`, `{"seq":1}x`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var strict, loose SignedValue
		if decodeStrict(b, &strict) != nil {
			return
		}
		if err := json.Unmarshal(b, &loose); err != nil {
			t.Fatalf("strict takes what loose refuses: %v", err)
		}
		x, _ := json.Marshal(strict)
		y, _ := json.Marshal(loose)
		if string(x) != string(y) {
			t.Fatalf("%s and %s", x, y)
		}
	})
}

func TestPeers(t *testing.T) {
	for _, tt := range []struct {
		peer, self       int
		allowed, trusted bool
	}{
		{1000, 1000, true, true},
		{0, 1000, true, true},
		{1001, 1000, false, false},
		{1000, 0, false, true},
		{0, 0, true, true},
	} {
		if got := allowed(tt.peer, tt.self); got != tt.allowed {
			t.Errorf("server of %d, client of %d: served %v", tt.self, tt.peer, got)
		}
		if got := trusted(tt.peer, tt.self); got != tt.trusted {
			t.Errorf("client of %d, server of %d: trusted %v", tt.self, tt.peer, got)
		}
	}
}
