package wire

import "atoll.example/atoll/internal/id"

// Codec passes over the fields of a value, one after the other, and either
// writes them or reads them: one list of fields serves both directions, so
// they cannot differ. It is made by Writer.Codec or Reader.Codec.
//
// Writing never assigns to a field: values may be shared.
type Codec struct {
	w *Writer // exactly one of the two is set
	r *Reader
}

// Codec writes what it passes over.
func (w *Writer) Codec() Codec { return Codec{w: w} }

// Codec reads what it passes over.
func (r *Reader) Codec() Codec { return Codec{r: r} }

// Read reports whether fields have been read, all of them well so far: then is
// the time to fill in what follows from them.
func (c Codec) Read() bool { return c.r != nil && c.r.err == nil }

// Check makes err the error of reading unless ok. Writing ignores it.
func (c Codec) Check(ok bool, err error) {
	if c.r != nil && !ok {
		c.r.Fail(err)
	}
}

// Version writes v, or refuses any other.
func (c Codec) Version(v uint8) {
	got := v
	c.U8(&got)
	c.Check(got == v, ErrVersion)
}

func (c Codec) U8(v *uint8) {
	if c.w != nil {
		c.w.U8(*v)
	} else {
		*v = c.r.U8()
	}
}

func (c Codec) U32(v *uint32) {
	if c.w != nil {
		c.w.U32(*v)
	} else {
		*v = c.r.U32()
	}
}

func (c Codec) U64(v *uint64) {
	if c.w != nil {
		c.w.U64(*v)
	} else {
		*v = c.r.U64()
	}
}

// Bool is 0 or 1.
func (c Codec) Bool(v *bool) {
	if c.w != nil {
		c.w.Bool(*v)
	} else {
		*v = c.r.Bool()
	}
}

// Fixed writes b, or fills it.
func (c Codec) Fixed(b []byte) {
	if c.w != nil {
		c.w.Fixed(b)
	} else {
		c.r.Into(b)
	}
}

// GUID is 32 bytes.
func (c Codec) GUID(g *id.GUID) { c.Fixed(g[:]) }

// Bytes is n bytes, at most limit; the codec's user knows n from elsewhere.
// What is read aliases the input.
func (c Codec) Bytes(b *[]byte, n, limit int) {
	if c.w != nil {
		c.w.Fixed(*b)
	} else {
		*b = c.r.bounded(n, limit)
	}
}

// Bytes8 is a u8 length of at most limit and that many bytes. What is read
// aliases the input.
func (c Codec) Bytes8(b *[]byte, limit int) {
	if c.w != nil {
		c.w.Bytes8(*b)
	} else {
		*b = c.r.Bytes8(limit)
	}
}

// Bytes16 is a u16 length of at most limit and that many bytes. What is read
// aliases the input.
func (c Codec) Bytes16(b *[]byte, limit int) {
	if c.w != nil {
		c.w.Bytes16(*b)
	} else {
		*b = c.r.Bytes16(limit)
	}
}

// Bytes32 is a u32 length of at most limit and that many bytes. What is read
// aliases the input.
func (c Codec) Bytes32(b *[]byte, limit int) {
	if c.w != nil {
		c.w.Bytes32(*b)
	} else {
		*b = c.r.Bytes32(limit)
	}
}

// Text8 is a u8 length of at most limit and that many bytes.
func (c Codec) Text8(s *string, limit int) {
	if c.w != nil {
		c.w.Bytes8([]byte(*s))
	} else {
		*s = string(c.r.Bytes8(limit))
	}
}

// Handle is a node handle.
func (c Codec) Handle(h **id.Handle) {
	if c.w != nil {
		c.w.Handle(*h)
	} else {
		*h = c.r.Handle()
	}
}

// Enum is a u8 from lo to hi.
func Enum[T ~uint8](c Codec, v *T, lo, hi T) {
	if c.w != nil {
		c.w.U8(uint8(*v))
		return
	}
	*v = T(c.r.U8())
	c.Check(*v >= lo && *v <= hi, ErrValue)
}

// List is a u16 count of at most limit and that many elements, each at least
// least bytes long. An empty list is read as nil.
func List[T any](c Codec, list *[]T, limit, least int, element func(*T, Codec)) {
	if c.w != nil {
		c.w.Count(len(*list))
	} else {
		*list = room[T](c.r.Count(limit, least))
	}
	for i := range *list {
		element(&(*list)[i], c)
	}
}

// List8 is a List with a u8 count.
func List8[T any](c Codec, list *[]T, limit, least int, element func(*T, Codec)) {
	if c.w != nil {
		c.w.Count8(len(*list))
	} else {
		*list = room[T](c.r.Count8(limit, least))
	}
	for i := range *list {
		element(&(*list)[i], c)
	}
}

func room[T any](n int) []T {
	if n == 0 {
		return nil
	}
	return make([]T, n)
}
