package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

const forkSub = "fork"

type (
	scrub struct{}
)

func (n *Node) notBuilt(cmd uint64) {
	n.refuse(cmd, &Refusal{Code: CodeBadRequest, Detail: "not built yet"})
}
func (n *Node) cmdPutSigned(cmd uint64, _ PutSignedCmd) { n.notBuilt(cmd) }
func (n *Node) cmdGetSigned(cmd uint64, _ GetSignedCmd) { n.notBuilt(cmd) }
func (n *Node) cmdAudit(cmd uint64, _ AuditCmd)         { n.notBuilt(cmd) }
func (n *Node) onPutSigned(p *peer, m *putSignedMsg)    {}
func (n *Node) onGetSigned(p *peer, m *getSignedMsg)    {}
func (n *Node) onPointer(p *peer, m *pointerMsg)        {}
func (n *Node) restoreSigned(store.Key, []byte) error   { return nil }
func (n *Node) restorePointer(store.Key, []byte) error  { return nil }
func (n *Node) restoreMeta(store.Key, []byte)           {}
func (n *Node) unpoint(*entry) []store.Op               { return nil }
func (n *Node) startScrub()                             {}
func (n *Node) badBlock(id.GUID, error)                 {}
func (n *Node) divert(p *peer, m *copyMsg)              { n.no(p, m.req, &refuseMsg{code: codeFull}) }

func (n *Node) takeSigned(p *peer, ss []Signed, f func(bool)) { f(true) }

func (n *Node) pushSigned(p *peer, g id.GUID, f func(bool)) { f(true) }
