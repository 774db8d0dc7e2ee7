package ikeconv

import (
	"testing"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// A probing agent at the other end comes from a port of its own. What it asks,
// and what it is told, is not the conversation of the two daemons.
func TestAgentAtTheOtherEnd(t *testing.T) {
	daemons := newWire(ours)
	daemons.init(gcm, someKE, someNo)
	daemons.initAnswer(gcm, someKE, someNo)
	daemons.request(ours, ike.Auth, 1, 230)
	daemons.answer(ours, ike.Auth, 1, 8)

	agent := newWire(theirs)
	agent.spii[0]++
	agent.c, agent.now = New(), daemons.now // only to build messages
	for _, m := range []Message{agent.init(gcm, someKE, someNo), agent.initAnswer(none14)} {
		m.RemotePort = 40123
		daemons.c.Add(m)
	}
	k := daemons.talk()
	if n := newest(t, k); !n.Ours || n.Reached != evidence.ReachedRejected || k.Attempts != 1 || len(k.Offers) != 1 {
		t.Errorf("%d negotiations, the newest %+v, offers %+v; want the daemons' only", k.Attempts, n, k.Offers)
	}
}

// What this side refused of the peer's does not hide how its own negotiation
// ended.
func TestOwnNegotiationFirst(t *testing.T) {
	w := newWire(ours)
	w.init(gcm, someKE, someNo)
	w.initAnswer(gcm, someKE, someNo)
	w.request(ours, ike.Auth, 1, 230)
	w.answer(ours, ike.Auth, 1, 8)
	other := newWire(theirs)
	other.c, other.now, other.spii[0] = w.c, w.now, other.spii[0]+1
	other.init(gcm, someKE, someNo)
	other.initAnswer(none14)
	if n := newest(t, w.talk()); !n.Ours || n.Reached != evidence.ReachedRejected {
		t.Errorf("the newest negotiation is %+v, want our own", n)
	}
}

// An IKE SA without a child (RFC 6023) did not have one refused.
func TestChildless(t *testing.T) {
	for n, want := range map[int]evidence.Fact{70: evidence.Unknown, 230: evidence.Yes} {
		w := newWire(ours)
		w.init(gcm, someKE, someNo)
		w.initAnswer(gcm, someKE, someNo)
		w.request(ours, ike.Auth, 1, n)
		w.answer(ours, ike.Auth, 1, 69)
		if got := newest(t, w.talk()); got.Reached != evidence.ReachedIKE || got.ChildRefused != want {
			t.Errorf("request of %d inner bytes: %s, child refused: %v, want %v", n, got.Reached, got.ChildRefused, want)
		}
	}
}
