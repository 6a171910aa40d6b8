package sim

import (
	"bytes"
	"testing"
)

var goodCases = []string{
	`{"scenario":"dht-churn","seed":1}`,
	`{"scenario":"overlay-freeze","seed":18446744073709551615,"quick":true,"bugs":["GrantEarly"],"only":{"finding":"two owners","nodes":[1,88],"operations":[44],"faults":[{"kind":"freeze","n":2}],"until_ms":34559}}`,
	`{"scenario":"dht-churn","seed":1,"node_hours":2.5,"only":{"finding":"ack","nodes":[1,4],"operations":[1,2],"faults":[{"kind":"loss"},{"kind":"join","n":1,"draws":87,"node":21}],"until_ms":0}}`,
}

func TestCaseFile(t *testing.T) {
	for _, text := range goodCases {
		c, err := DecodeCase([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if b, err := c.Encode(); err != nil || string(b) != text+"\n" {
			t.Errorf("%s becomes %s, error %v", text, b, err)
		}
	}
	for _, text := range []string{
		``, `null`, `[]`, `{}`,
		`{"scenario":"none such","seed":1}`,
		`{"scenario":"dht-churn","seed":-1}`,
		`{"scenario":"dht-churn","seed":1,"sead":2}`,
		`{"scenario":"dht-churn","seed":1} {}`,
		`{"scenario":"dht-churn","seed":1,"only":{}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","nodes":[0]}}`,
		`{"scenario":"dht-fill","seed":1,"only":{"finding":"ack","nodes":[1]}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","nodes":[1,3,3]}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","operations":[2,1]}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","until_ms":-1}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","faults":[{"n":1}]}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","faults":[{"kind":"crash","n":-1}]}}`,
		`{"scenario":"dht-churn","seed":1,"only":{"finding":"ack","faults":[{"kind":"crash","draws":100000001}]}}`,
	} {
		if c, err := DecodeCase([]byte(text)); err == nil {
			t.Errorf("%s read as %+v", text, c)
		}
	}
	if _, err := DecodeCase(make([]byte, MaxCase+1)); err == nil {
		t.Error("a huge file was read")
	}
}

// FuzzDecodeCase: what is read is written the same and read again.
func FuzzDecodeCase(f *testing.F) {
	for _, text := range goodCases {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCase(b)
		if err != nil {
			return
		}
		first, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		c, err = DecodeCase(first)
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("%s, then %s, error %v", first, again, err)
		}
	})
}
