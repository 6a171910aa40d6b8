package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// decodeStrict reads one JSON object into v, and refuses what encoding/json
// lets pass: unknown fields, a field given twice (in whatever case, since
// encoding/json folds it), deep nesting, and anything after the object.
func decodeStrict(body []byte, v any) error {
	if err := checkShape(body); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// checkShape makes sure that body is one JSON object without repeated fields.
func checkShape(body []byte) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	// One frame for each open object or array: the fields seen, nil for arrays.
	var stack []map[string]bool
	key := false // the next token is a field's name
	for first := true; ; first = false {
		tok, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return errors.New("the body is not a JSON object")
			}
			return fmt.Errorf("the body is not JSON: %w", err)
		}
		if first && tok != json.Delim('{') {
			return errors.New("the body is not a JSON object")
		}
		switch t := tok.(type) {
		case json.Delim:
			switch t {
			case '{', '[':
				if len(stack) == maxDepth {
					return fmt.Errorf("nested deeper than %d", maxDepth)
				}
				var seen map[string]bool
				if t == '{' {
					seen = make(map[string]bool)
				}
				stack = append(stack, seen)
			default:
				stack = stack[:len(stack)-1]
			}
		case string:
			if key {
				seen, name := stack[len(stack)-1], strings.ToLower(t)
				if seen[name] {
					return fmt.Errorf("field %q is given twice", t)
				}
				seen[name] = true
				key = false
				continue // a value follows
			}
		}
		if len(stack) == 0 {
			break
		}
		key = stack[len(stack)-1] != nil
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	return nil
}

// query reads a URL's query once per name; finish tells what was wrong with it
// or left over.
type query struct {
	values url.Values
	err    error
}

func newQuery(raw string) *query {
	v, err := url.ParseQuery(raw)
	if err != nil {
		return &query{err: errors.New("the query is not well-formed")}
	}
	q := &query{values: v}
	for name, all := range v {
		if len(all) > 1 {
			q.fail("%q is given twice", name)
		}
	}
	return q
}

func (q *query) fail(format string, a ...any) {
	if q.err == nil {
		q.err = fmt.Errorf(format, a...)
	}
}

func (q *query) text(name string, most int) string {
	s := q.values.Get(name)
	delete(q.values, name)
	if len(s) > most {
		q.fail("%s has %d bytes, more than %d", name, len(s), most)
		return ""
	}
	return s
}

// number reads a decimal number from 0 to most.
func (q *query) number(name string, def, most int64) int64 {
	s := q.text(name, 20)
	if s == "" {
		return def
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > most {
		q.fail("%s is not a number from 0 to %d", name, most)
		return def
	}
	return n
}

func (q *query) truth(name string) bool {
	s := q.text(name, 5)
	if s == "" {
		return false
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		q.fail("%s is neither true nor false", name)
	}
	return b
}

func (q *query) finish() error {
	for name := range q.values {
		q.fail("unknown parameter %q", name)
	}
	return q.err
}
