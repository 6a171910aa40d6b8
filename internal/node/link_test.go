package node

import "testing"

// TestMovedBeforeMember: the transport may tell of new addresses while it is being
// made, when the node has neither it nor a handle yet.
func TestMovedBeforeMember(t *testing.T) {
	n := &Node{link: &link{}}
	n.moved()
}
