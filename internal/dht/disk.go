package dht

import (
	"errors"

	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/machine"
	"atoll.example/atoll/internal/store"
)

// store makes a batch durable and calls f with nil, or with store.ErrFull if
// nothing was written. Any other error stops the node.
func (n *Node) store(g id.GUID, b store.Batch, f func(err error)) {
	n.seq++
	num := n.seq | idPart
	n.waits[num] = func(_ any, err error) {
		if err != nil && !errors.Is(err, store.ErrFull) {
			n.halt(err)
			return
		}
		f(err)
	}
	n.out = append(n.out, machine.Effect{Kind: machine.Store, ID: num, Shard: g, Body: b})
}

func (n *Node) halt(err error) {
	n.halted = true
	n.trace("dht.halt", id.GUID{}, id.GUID{}, 0, err.Error())
	n.out = append(n.out, machine.Effect{Kind: machine.Halt, Err: err})
}

// load reads records; absent ones are nil.
func (n *Node) load(keys []store.Key, f func(values [][]byte, err error)) {
	n.seq++
	num := n.seq | idPart
	n.waits[num] = func(body any, err error) {
		values, _ := body.([][]byte)
		if err == nil && len(values) != len(keys) {
			err = store.ErrNotFound
		}
		f(values, err)
	}
	n.out = append(n.out, machine.Effect{Kind: machine.Load, ID: num, Body: keys})
}

// lock makes changes to one GUID follow each other: what is on disk then never
// differs from what the next change was decided on.
type lock struct{ queue []func() }

const maxQueue = 64 // changes waiting for one GUID

// exclusive runs f when no other change of g is under way; f's work ends with
// release. False: too many wait.
func (n *Node) exclusive(g id.GUID, f func()) bool {
	l, busy := n.locks[g]
	if !busy {
		n.locks[g] = &lock{}
		f()
		return true
	}
	if len(l.queue) >= maxQueue {
		n.stats.Dropped++
		return false
	}
	l.queue = append(l.queue, f)
	return true
}

func (n *Node) release(g id.GUID) {
	l := n.locks[g]
	if l == nil {
		panic("dht: release without lock: " + g.String())
	}
	if len(l.queue) == 0 {
		delete(n.locks, g)
		return
	}
	f := l.queue[0]
	l.queue = l.queue[1:]
	f()
}
