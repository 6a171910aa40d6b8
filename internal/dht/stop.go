package dht

// StopCmd prepares the end of the process: from here on this node coordinates
// nothing new for others, who then ask the next member of the set. It is answered
// with StopDone once those requests have been that were under way. As a holder
// the node serves on; its own commands go on, too.
type StopCmd struct{}

// StopDone answers StopCmd.
type StopDone struct{}

// stopped answers the StopCmd if nobody waits for this node any more.
func (n *Node) stopped() {
	if n.stop != 0 && n.spreads == 0 {
		n.reply(n.stop, StopDone{})
		n.stop = 0
	}
}
