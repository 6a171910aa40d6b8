package atoll_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strings"

	"atoll.example/atoll"
)

// start makes a pool of one on this machine, in a new folder.
func start(ctx context.Context) (n *atoll.Node, stop func()) {
	dir, err := os.MkdirTemp("", "atoll-example-")
	if err != nil {
		log.Fatal(err)
	}
	n, err = atoll.Create(ctx, atoll.Options{Dir: dir, Loopback: true, Limit: 256 << 20}, atoll.Pool{Name: "example"})
	if err != nil {
		log.Fatal(err)
	}
	return n, func() {
		if err := n.Close(); err != nil {
			log.Fatal(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Fatal(err)
		}
	}
}

// A file is put through one member and fetched through another.
func Example() {
	ctx := context.Background()
	first, stop := start(ctx)
	defer stop()
	invite, err := first.Invite(ctx, atoll.InviteOptions{})
	if err != nil {
		log.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "atoll-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	second, err := atoll.Join(ctx, atoll.Options{Dir: dir, Loopback: true, Limit: 256 << 20}, invite)
	if err != nil {
		log.Fatal(err)
	}
	defer second.Close()

	link, err := second.Put(ctx, strings.NewReader("high water 04:12, 16:37"), atoll.PutOptions{Name: "tides.txt"})
	if err != nil {
		log.Fatal(err)
	}
	var out bytes.Buffer
	f, err := first.Get(ctx, link, &out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s: %s\n", f.Name, out.String())
	// Output: tides.txt: high water 04:12, 16:37
}

// A node is stopped and started again: what it stored is there.
func ExampleOpen() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "atoll-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	o := atoll.Options{Dir: dir, Name: "alpha", Loopback: true, Limit: 256 << 20}
	n, err := atoll.Create(ctx, o, atoll.Pool{Name: "example"})
	if err != nil {
		log.Fatal(err)
	}
	link, err := n.Put(ctx, strings.NewReader("still here"), atoll.PutOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := n.Close(); err != nil {
		log.Fatal(err)
	}

	if n, err = atoll.Open(ctx, o); err != nil {
		log.Fatal(err)
	}
	defer n.Close()
	if _, err := n.Get(ctx, link, os.Stdout); err != nil {
		log.Fatal(err)
	}
	// Output: still here
}

func ExampleNode_Put() {
	ctx := context.Background()
	n, stop := start(ctx)
	defer stop()
	link, err := n.Put(ctx, strings.NewReader("high water 04:12, 16:37"), atoll.PutOptions{Name: "tides.txt"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(link.Text()[:9], len(link.Text())) // all of it reads the file
	// Output: atoll:r1: 125
}

func ExampleNode_Get() {
	ctx := context.Background()
	n, stop := start(ctx)
	defer stop()
	link, err := n.Put(ctx, strings.NewReader("high water 04:12, 16:37\n"), atoll.PutOptions{Name: "tides.txt"})
	if err != nil {
		log.Fatal(err)
	}
	f, err := n.Get(ctx, link, os.Stdout)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s, %d bytes\n", f.Name, f.Size)
	// Output:
	// high water 04:12, 16:37
	// tides.txt, 24 bytes
}

func ExampleNode_Remove() {
	ctx := context.Background()
	n, stop := start(ctx)
	defer stop()
	link, err := n.Put(ctx, strings.NewReader("not for long"), atoll.PutOptions{})
	if err != nil {
		log.Fatal(err)
	}
	if err := n.Remove(ctx, link); err != nil {
		log.Fatal(err)
	}
	_, err = n.Get(ctx, link, os.Stdout)
	fmt.Println(atoll.Code(err))
	// Output: removed
}

// Blocks are the distributed hash table below the files.
func ExampleNode_PutBlock() {
	ctx := context.Background()
	n, stop := start(ctx)
	defer stop()
	g, err := n.PutBlock(ctx, []byte("a block"))
	if err != nil {
		log.Fatal(err)
	}
	value, err := n.GetBlock(ctx, g)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(value))
	if err := n.RemoveBlock(ctx, g); err != nil {
		log.Fatal(err)
	}
	_, err = n.GetBlock(ctx, g)
	fmt.Println(atoll.Code(err))
	// Output:
	// a block
	// removed
}

// A signed block has a value that its owner replaces, here only if nobody has
// done so since.
func ExampleNode_PutSigned() {
	ctx := context.Background()
	n, stop := start(ctx)
	defer stop()
	g, seq, err := n.PutSigned(ctx, atoll.Signed{Salt: []byte("tide"), Value: []byte("high")}, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, _, err = n.PutSigned(ctx, atoll.Signed{Salt: []byte("tide"), Value: []byte("low")}, &seq); err != nil {
		log.Fatal(err)
	}
	_, _, err = n.PutSigned(ctx, atoll.Signed{Salt: []byte("tide"), Value: []byte("high")}, &seq)
	fmt.Println(atoll.Code(err))
	v, err := n.GetSigned(ctx, g)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(v.Seq, string(v.Value))
	// Output:
	// cas
	// 2 low
}
