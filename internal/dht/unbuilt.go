package dht

import (
	"atoll.example/atoll/internal/id"
	"atoll.example/atoll/internal/store"
)

type session struct{}

func (*session) reset() {}

type repair struct{ soon bool }

func (*repair) init()       {}
func (*repair) queued() int { return 0 }

type (
	scrub struct{}
	drain struct{}
)

func (n *Node) notBuilt(cmd uint64) {
	n.refuse(cmd, &Refusal{Code: CodeBadRequest, Detail: "not built yet"})
}
func (n *Node) cmdRemove(cmd uint64, _ RemoveCmd)       { n.notBuilt(cmd) }
func (n *Node) cmdPutSigned(cmd uint64, _ PutSignedCmd) { n.notBuilt(cmd) }
func (n *Node) cmdGetSigned(cmd uint64, _ GetSignedCmd) { n.notBuilt(cmd) }
func (n *Node) cmdAudit(cmd uint64, _ AuditCmd)         { n.notBuilt(cmd) }
func (n *Node) cmdSurvey(cmd uint64)                    { n.notBuilt(cmd) }
func (n *Node) cmdDrain(cmd uint64)                     { n.notBuilt(cmd) }
func (n *Node) onRemove(p *peer, m *removeMsg)          {}
func (n *Node) onPutSigned(p *peer, m *putSignedMsg)    {}
func (n *Node) onGetSigned(p *peer, m *getSignedMsg)    {}
func (n *Node) onSyncTree(p *peer, m *syncTreeMsg)      {}
func (n *Node) onSyncKeys(p *peer, m *syncKeysMsg)      {}
func (n *Node) onWant(p *peer, m *wantMsg)              {}
func (n *Node) onSurvey(p *peer, m *surveyMsg)          {}
func (n *Node) onPointer(p *peer, m *pointerMsg)        {}
func (n *Node) restoreSigned(store.Key, []byte) error   { return nil }
func (n *Node) restorePointer(store.Key, []byte) error  { return nil }
func (n *Node) restoreMeta(store.Key, []byte)           {}
func (n *Node) unpoint(*entry) []store.Op               { return nil }
func (n *Node) startScrub()                             {}
func (n *Node) reenter(*peer)                           {}
func (n *Node) pulseRepair()                            {}
func (n *Node) badBlock(id.GUID, error)                 {}
func (n *Node) touch(id.GUID)                           {}
func (n *Node) divert(p *peer, m *copyMsg)              { n.no(p, m.req, &refuseMsg{code: codeFull}) }

func (n *Node) pulseSync() {
	for _, a := range n.arcs {
		a.synced = a.mine()
	}
}
