package store

import "fmt"

// Arithmetic of the limit, the same for every Store (20-dht §6). Numbers of
// our own: the reserve is what compaction and tombstones may need while the
// store refuses everything else.
const (
	MinLimit = 256 << 20 // bytes; below it the reserve would leave too little
	Ballast  = 64 << 20  // bytes of the reserve that do not depend on the limit
	Overhead = 96        // bytes charged for a record beyond its key and value
)

// CheckLimit refuses a limit under MinLimit.
func CheckLimit(limit int64) error {
	if limit < MinLimit {
		return fmt.Errorf("store: a limit of %d bytes is below the least, %d MiB", limit, MinLimit>>20)
	}
	return nil
}

// ReserveOf is the reserve of a store that can hold n bytes: 5 % and the ballast.
func ReserveOf(n int64) int64 { return n/20 + Ballast }

// Cost is what a record with a value of n bytes adds to Used.
func Cost(k Key, n int) int64 { return int64(1+len(k.GUID)+len(k.Sub)+n) + Overhead }

// Space is the state behind a Usage.
type Space struct {
	Limit, Used, Blocks int64
	FSFree              int64 // free on the file system, math.MaxInt64 if there is none
}

// room is what could be written at all, the reserve included; may be negative.
func (s Space) room() int64 { return min(s.Limit-s.Used, s.FSFree) }

// Reserve is that of what the store can hold: up to its limit, or all that its file
// system has for it, if that is less (docs/adr/0015). What the store writes leaves it
// as it is.
func (s Space) Reserve() int64 { return ReserveOf(max(0, s.Used+s.room())) }

// Usage adds the reserve and what is free.
func (s Space) Usage() Usage {
	reserve := s.Reserve()
	return Usage{
		Limit:   s.Limit,
		Used:    s.Used,
		Reserve: reserve,
		Free:    max(0, s.room()-reserve),
		Blocks:  s.Blocks,
	}
}

// Fits reports whether the store may grow by n bytes. What does not grow
// always fits; urgent growth may use the reserve.
func (s Space) Fits(n int64, urgent bool) bool {
	if n <= 0 {
		return true
	}
	if !urgent {
		n += s.Reserve()
	}
	return n <= s.room()
}

// CheckOps refuses what no Store keeps: keys and values over their bounds.
func CheckOps(ops []Op) error {
	for i := range ops {
		k := ops[i].Key
		switch {
		case k.Family < 'A' || k.Family > 'z':
			return fmt.Errorf("store: family %#x is not a letter", byte(k.Family))
		case len(k.Sub) > MaxSub:
			return fmt.Errorf("store: sub-key of %d bytes, limit %d", len(k.Sub), MaxSub)
		case !ops[i].Delete && len(ops[i].Value) > MaxValue:
			return fmt.Errorf("store: value of %d bytes, limit %d", len(ops[i].Value), MaxValue)
		}
	}
	return nil
}

// String names a key for people: family, first digits, length of the sub-key.
func (k Key) String() string {
	if k.Sub == "" {
		return string(rune(k.Family)) + ":" + k.GUID.Short()
	}
	if k.Family == Meta {
		return "m:" + fmt.Sprintf("%q", k.Sub)
	}
	return fmt.Sprintf("%c:%s+%d", k.Family, k.GUID.Short(), len(k.Sub))
}
