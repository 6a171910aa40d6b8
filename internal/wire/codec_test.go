package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"atoll.example/atoll/internal/id"
)

type colour uint8

type part struct {
	n    uint32
	yes  bool
	name string
}

func (p *part) fields(c Codec) {
	c.U32(&p.n)
	c.Bool(&p.yes)
	c.Text8(&p.name, 4)
}

// whole has a field of each form.
type whole struct {
	a      uint8
	b      uint64
	fixed  [3]byte
	guid   id.GUID
	short  []byte
	middle []byte
	long   []byte
	handle *id.Handle
	colour colour
	few    []part
	many   []part
}

func (v *whole) fields(c Codec) {
	c.Version(7)
	c.U8(&v.a)
	c.U64(&v.b)
	c.Fixed(v.fixed[:])
	c.GUID(&v.guid)
	c.Bytes8(&v.short, 9)
	c.Bytes16(&v.middle, 9)
	c.Bytes32(&v.long, 9)
	c.Handle(&v.handle)
	Enum(c, &v.colour, 1, 3)
	List8(c, &v.few, 3, 6, (*part).fields)
	List(c, &v.many, 3, 6, (*part).fields)
	c.Check(v.a != 13, ErrValue)
}

func drawWhole(t *rapid.T) *whole {
	parts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) part {
		return part{rapid.Uint32().Draw(t, "n"), rapid.Bool().Draw(t, "yes"), rapid.StringN(0, 1, 4).Draw(t, "name")}
	}), 1, 3)
	some := rapid.SliceOfN(rapid.Byte(), 0, 9)
	v := &whole{
		a: rapid.Uint8Range(0, 12).Draw(t, "a"), b: rapid.Uint64().Draw(t, "b"), short: some.Draw(t, "short"), middle: some.Draw(t, "middle"), long: some.Draw(t, "long"),
		handle: anyHandle(t), colour: colour(rapid.Uint8Range(1, 3).Draw(t, "colour")), few: parts.Draw(t, "few"), many: parts.Draw(t, "many"),
	}
	copy(v.fixed[:], some.Draw(t, "fixed"))
	return v
}

// What a Codec writes, it reads; the bytes are those of Writer.
func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := drawWhole(t)
		var w Writer
		v.fields(w.Codec())
		var by Writer
		by.U8(7)
		by.U8(v.a)
		by.U64(v.b)
		by.Fixed(v.fixed[:])
		by.GUID(v.guid)
		by.Bytes8(v.short)
		by.Bytes16(v.middle)
		by.Bytes32(v.long)
		by.Handle(v.handle)
		by.U8(uint8(v.colour))
		by.U8(uint8(len(v.few)))
		for i, p := range append(append([]part{}, v.few...), v.many...) {
			if i == len(v.few) {
				by.Count(len(v.many))
			}
			by.U32(p.n)
			by.Bool(p.yes)
			by.Bytes8([]byte(p.name))
		}
		if !bytes.Equal(w.B, by.B) {
			t.Fatalf("wrote\n%x, want\n%x", w.B, by.B)
		}
		got := &whole{}
		r := NewReader(w.B)
		got.fields(r.Codec())
		if err := r.Close(); err != nil || !reflect.DeepEqual(got, v) {
			t.Fatalf("%+v was read as %+v, %v", v, got, err)
		}
		cut := NewReader(w.B[:rapid.IntRange(0, len(w.B)-1).Draw(t, "cut")])
		new(whole).fields(cut.Codec())
		if err := cut.Close(); !errors.Is(err, ErrMalformed) {
			t.Fatalf("cut short: %v", err)
		}
	})
}

func TestCodecRefuses(t *testing.T) {
	good := whole{colour: 2, handle: &id.Handle{Addrs: []string{"a"}}, few: make([]part, 1)}
	for name, c := range map[string]struct {
		change func(*whole)
		want   error
	}{
		"nothing":             {func(*whole) {}, nil},
		"colour below":        {func(v *whole) { v.colour = 0 }, ErrValue},
		"colour above":        {func(v *whole) { v.colour = 4 }, ErrValue},
		"check":               {func(v *whole) { v.a = 13 }, ErrValue},
		"short list too long": {func(v *whole) { v.few = make([]part, 4) }, ErrBound},
		"list too long":       {func(v *whole) { v.many = make([]part, 4) }, ErrBound},
		"bytes too long":      {func(v *whole) { v.long = make([]byte, 10) }, ErrBound},
		"text too long":       {func(v *whole) { v.many = []part{{name: "abcde"}} }, ErrBound},
	} {
		v := good
		c.change(&v)
		var w Writer
		v.fields(w.Codec())
		r := NewReader(w.B)
		new(whole).fields(r.Codec())
		if err := r.Close(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	r := NewReader([]byte{8})
	r.Codec().Version(7)
	if err := r.Close(); !errors.Is(err, ErrVersion) {
		t.Errorf("version 8: %v", err)
	}
	r = NewReader([]byte{3, 1, 2})
	var list []uint8
	List8(r.Codec(), &list, 9, 1, func(v *uint8, c Codec) { c.U8(v) })
	if err := r.Close(); !errors.Is(err, ErrShort) || list != nil {
		t.Errorf("a count beyond the data: %v, %v", list, err)
	}
}
