package api

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"atoll.example/atoll/internal/id"
)

// FuzzEvents: whatever a server sends, no event is longer than its bound, and
// events written out again are read as the same.
func FuzzEvents(f *testing.F) {
	f.Add("event: progress\ndata: {\"bytes\":1}\n\ndata: a\ndata:b\n\n")
	f.Add(":\n\n\ndata\n\n")
	read := func(s string) (all []string, err error) {
		err = readEvents(strings.NewReader(s), func(name string, data []byte) error {
			if len(data) > maxEvent {
				return fmt.Errorf("%d bytes", len(data))
			}
			all = append(all, fmt.Sprintf("event: %s\ndata: %s\n\n", name, data))
			return nil
		})
		return all, err
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := read(s)
		if err != nil {
			return
		}
		again, err := read(strings.Join(all, ""))
		if err != nil || strings.Join(again, "|") != strings.Join(all, "|") {
			t.Errorf("%q is read as %q, then as %q, %v", s, all, again, err)
		}
	})
}

func FuzzHead(f *testing.F) {
	f.Add("5", "a%20b", id.FromPrefix("aa").String())
	f.Fuzz(func(t *testing.T, size, name, guid string) {
		h := http.Header{HeaderSize: {size}, HeaderName: {name}, HeaderGUID: {guid}}
		head, err := readHead(h)
		if err != nil {
			return
		}
		again, err := readHead(http.Header{
			HeaderSize: {fmt.Sprint(head.Size)}, HeaderName: {url.PathEscape(head.Name)}, HeaderGUID: {head.GUID.String()},
		})
		if err != nil || again != head {
			t.Errorf("%v is read as %+v, then as %+v, %v", h, head, again, err)
		}
	})
}
