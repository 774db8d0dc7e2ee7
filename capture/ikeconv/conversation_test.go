package ikeconv

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

const ms = time.Millisecond

// TestRequests counts the requests of an established IKE SA. What is said
// before is subtracted.
func TestRequests(t *testing.T) {
	type direction = evidence.IKEDirection
	type dpd = evidence.IKEDPD
	rtt := func(list ...time.Duration) (s []evidence.Seconds) {
		for _, d := range list {
			s = append(s, evidence.Seconds(d))
		}
		return s
	}
	ping := func(w *wire, from side, id uint32) Message { return w.request(from, ike.Informational, id, 0) }
	pong := func(w *wire, from side, id uint32) { w.answer(from, ike.Informational, id, 0) }
	for _, tt := range []struct {
		name    string
		say     func(w *wire)
		out, in direction
		rekeys  [2]uint64 // and failed
	}{
		{
			name: "answered", out: direction{Requests: 1, Answered: 1, DPD: dpd{Requests: 1, Answered: 1, RTTs: rtt(30 * ms)}},
			say: func(w *wire) { ping(w, ours, 2); w.wait(30 * ms); pong(w, ours, 2) },
		},
		{
			name: "answered by this side", in: direction{Requests: 1, Answered: 1, DPD: dpd{Requests: 1, Answered: 1, RTTs: rtt(ms)}},
			say: func(w *wire) { ping(w, theirs, 0); w.wait(ms); pong(w, theirs, 0) },
		},
		{
			name: "no round trip of a request that was repeated", out: direction{Requests: 1, Retransmissions: 1, Answered: 1, DPD: dpd{Requests: 1, Answered: 1}},
			say: func(w *wire) { m := ping(w, ours, 2); w.wait(4 * time.Second).again(m); w.wait(ms); pong(w, ours, 2) },
		},
		{
			name: "missed", out: direction{Requests: 1, Retransmissions: 2, Unanswered: 1, DPD: dpd{Requests: 1, Missed: 1, Trailing: 1}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				w.wait(4 * time.Second).again(m)
				w.wait(7 * time.Second).again(m)
			},
		},
		{
			name: "missed by this side", in: direction{Requests: 1, Retransmissions: 1, Unanswered: 1, DPD: dpd{Requests: 1, Missed: 1, Trailing: 1}},
			say: func(w *wire) { m := ping(w, theirs, 0); w.wait(4 * time.Second).again(m); w.wait(time.Second) },
		},
		{
			name: "not yet missed", out: direction{Requests: 1, Retransmissions: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) { m := ping(w, ours, 2); w.wait(4 * time.Second).again(m); w.wait(999 * ms) },
		},
		{
			name: "sent once, so that its answer may not have been seen", out: direction{Requests: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) { ping(w, ours, 2); w.wait(time.Minute) },
		},
		{
			name: "late", out: direction{Requests: 1, Retransmissions: 1, Unanswered: 1, DPD: dpd{Requests: 1, Missed: 1}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				w.wait(4 * time.Second).again(m)
				w.wait(7 * time.Second)
				pong(w, ours, 2)
			},
		},
		{
			name: "the next one tells that the answer was not seen", out: direction{Requests: 2, Retransmissions: 1, Answered: 1, DPD: dpd{Requests: 2, Answered: 1, RTTs: rtt(ms)}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				w.wait(time.Second).again(m)
				w.wait(time.Second)
				ping(w, ours, 3)
				w.wait(ms)
				pong(w, ours, 3)
				w.wait(time.Minute)
			},
		},
		{
			name: "answered twice, and repeated behind it", out: direction{Requests: 1, Retransmissions: 1, Answered: 1, DPD: dpd{Requests: 1, Answered: 1, RTTs: rtt(ms)}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				w.wait(ms)
				pong(w, ours, 2)
				w.again(m)
				pong(w, ours, 2)
				w.wait(time.Minute)
			},
		},
		{
			name: "a gap", out: direction{Requests: 1, Retransmissions: 1, Answered: 1, DPD: dpd{Requests: 1, Answered: 1}}, in: direction{Requests: 1, Retransmissions: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) {
				a, b := ping(w, ours, 2), ping(w, theirs, 0)
				w.c.Gap()
				w.wait(4 * time.Second).again(a)
				w.again(b)
				w.wait(2 * time.Second)
				pong(w, ours, 2)
				w.wait(time.Minute)
			},
		},
		{
			name: "same message ID, another message", out: direction{Requests: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) { ping(w, ours, 2); ping(w, ours, 2) },
		},
		{
			name: "refused in clear, as anyone can", out: direction{Requests: 1, Retransmissions: 1, Unanswered: 1, DPD: dpd{Requests: 1, Missed: 1, Trailing: 1}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				w.send(theirs, ike.Message{Header: ike.Header{
					SPIi: w.spii, SPIr: w.spir, Version: ike.V2, Exchange: ike.Informational, Flags: w.flags(theirs, true), MessageID: 2,
				}, Payloads: []ike.Payload{ike.Notify{Type: ike.InvalidIKESPI}.Payload()}}.Append(nil))
				w.wait(4 * time.Second).again(m)
				w.wait(time.Second)
			},
		},
		{
			name: "answers with another message ID, or to this side", out: direction{Requests: 1, Retransmissions: 1, Unanswered: 1, DPD: dpd{Requests: 1, Missed: 1, Trailing: 1}},
			say: func(w *wire) {
				m := ping(w, ours, 2)
				pong(w, ours, 3)
				w.answer(theirs, ike.Informational, 2, 0)
				w.answer(ours, ike.CreateChildSA, 2, 0)
				w.wait(4 * time.Second).again(m)
				w.wait(time.Second)
			},
		},
		{
			name: "a large one is no dead peer detection", out: direction{Requests: 1, Answered: 1},
			say: func(w *wire) { w.request(ours, ike.Informational, 2, 72); w.answer(ours, ike.Informational, 2, 28) },
		},
		{
			name: "deletes", out: direction{Requests: 1, Answered: 1, Deletes: 1}, in: direction{Requests: 1, Answered: 1, Deletes: 1},
			say: func(w *wire) {
				w.wait(time.Minute)
				w.request(theirs, ike.Informational, 0, 12)
				w.answer(theirs, ike.Informational, 0, 12)
				w.request(ours, ike.Informational, 2, 8)
				w.answer(ours, ike.Informational, 2, 0)
			},
		},
		{
			name: "rekeyed", out: direction{Requests: 2, Answered: 2, Deletes: 1}, rekeys: [2]uint64{1, 0},
			say: func(w *wire) {
				w.request(ours, ike.CreateChildSA, 2, 160)
				w.answer(ours, ike.CreateChildSA, 2, 150)
				w.wait(time.Second).request(ours, ike.Informational, 3, 12)
				w.answer(ours, ike.Informational, 3, 12)
			},
		},
		{
			name: "rekey refused", in: direction{Requests: 1, Answered: 1}, rekeys: [2]uint64{0, 1},
			say: func(w *wire) {
				w.request(theirs, ike.CreateChildSA, 0, 160)
				w.answer(theirs, ike.CreateChildSA, 0, 8)
				w.wait(time.Minute)
			},
		},
		{
			name: "rekey with another group", out: direction{Requests: 2, Answered: 2}, rekeys: [2]uint64{1, 0},
			say: func(w *wire) {
				w.request(ours, ike.CreateChildSA, 2, 200)
				w.answer(ours, ike.CreateChildSA, 2, 10)
				w.wait(10*ms).request(ours, ike.CreateChildSA, 3, 400)
				w.answer(ours, ike.CreateChildSA, 3, 400)
				w.wait(time.Minute)
			},
		},
		{
			name: "rekey refused twice", out: direction{Requests: 2, Answered: 2}, rekeys: [2]uint64{0, 2},
			say: func(w *wire) {
				for id := range uint32(2) {
					w.request(ours, ike.CreateChildSA, 2+id, 200)
					w.answer(ours, ike.CreateChildSA, 2+id, 8)
					w.wait(10 * time.Second)
				}
			},
		},
		{
			name: "rekey not answered", out: direction{Requests: 1, Retransmissions: 1, Unanswered: 1}, rekeys: [2]uint64{0, 1},
			say: func(w *wire) {
				m := w.request(ours, ike.CreateChildSA, 2, 200)
				w.wait(4 * time.Second).again(m)
				w.wait(time.Second)
			},
		},
		{
			name: "in fragments, and again", out: direction{Requests: 1, Retransmissions: 2, Answered: 1}, rekeys: [2]uint64{1, 0},
			say: func(w *wire) {
				for range 3 {
					w.part(ours, ike.CreateChildSA, 2, false, 1, 3)
					w.part(ours, ike.CreateChildSA, 2, false, 3, 3)
					w.part(ours, ike.CreateChildSA, 2, false, 2, 3)
					w.wait(time.Second)
				}
				w.part(theirs, ike.CreateChildSA, 2, true, 1, 2)
				w.part(theirs, ike.CreateChildSA, 2, true, 2, 2)
			},
		},
		{
			name: "whole, then in fragments, then in smaller ones", out: direction{Requests: 1, Retransmissions: 2, Unanswered: 1}, rekeys: [2]uint64{0, 1},
			say: func(w *wire) {
				w.request(ours, ike.CreateChildSA, 2, 1600)
				w.wait(time.Second).part(ours, ike.CreateChildSA, 2, false, 1, 2)
				w.part(ours, ike.CreateChildSA, 2, false, 2, 2)
				w.wait(time.Second).part(ours, ike.CreateChildSA, 2, false, 1, 3)
				w.part(ours, ike.CreateChildSA, 2, false, 2, 3)
				w.part(ours, ike.CreateChildSA, 2, false, 3, 3)
				w.wait(10 * time.Second)
			},
		},
		{
			name: "another port of this side's",
			say: func(w *wire) {
				b := w.protected(ours, ike.Informational, 2, false, 0)
				w.c.Add(Message{Time: w.now, Ours: true, LocalPort: 40000, RemotePort: port, Data: b, Size: len(b)})
			},
		},
		{
			name: "another port of the peer's", in: direction{Requests: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) {
				b := w.protected(theirs, ike.Informational, 0, false, 0)
				w.c.Add(Message{Time: w.now, LocalPort: portNATT, RemotePort: 40000, NATT: true, Data: b, Size: len(b)})
			},
		},
		{
			name: "cut by the capture", in: direction{Requests: 1, DPD: dpd{Requests: 1}},
			say: func(w *wire) {
				b := w.protected(theirs, ike.Informational, 0, false, 0)
				w.c.Add(Message{Time: w.now, LocalPort: port, RemotePort: port, Data: b[:40], Size: len(b)})
			},
		},
		{
			name: "the first IP fragment", in: direction{Requests: 1},
			say: func(w *wire) {
				b := w.protected(theirs, ike.CreateChildSA, 0, false, 3000)
				w.c.Add(Message{Time: w.now, LocalPort: port, RemotePort: port, Data: b[:1472], Size: 1472, Fragment: true})
			},
		},
		{
			name: "a length that is wrong",
			say: func(w *wire) {
				b := w.protected(theirs, ike.Informational, 0, false, 0)
				w.c.Add(Message{Time: w.now, LocalPort: port, RemotePort: port, Data: b, Size: len(b) + 1})
			},
		},
		{
			name: "a flag that says that the other side began the SA",
			say: func(w *wire) {
				b := w.protected(theirs, ike.Informational, 0, false, 0)
				b[19] ^= byte(ike.FlagInitiator)
				w.send(theirs, b)
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWire(ours).establish()
			before := w.c.Snapshot(w.now)
			w.wait(time.Minute)
			tt.say(w)
			k := w.c.Snapshot(w.now).Since(before)
			if d := cmp.Diff(tt.out, k.Out); d != "" {
				t.Errorf("out (-want +got):\n%s", d)
			}
			if d := cmp.Diff(tt.in, k.In); d != "" {
				t.Errorf("in (-want +got):\n%s", d)
			}
			if got := [2]uint64{k.Rekeys, k.RekeysFailed}; got != tt.rekeys {
				t.Errorf("rekeys and failed ones are %d, want %d", got, tt.rekeys)
			}
		})
	}
}

// An IKE SA whose beginning was not seen counts as soon as this side speaks on
// it.
func TestMiddle(t *testing.T) {
	w := newWire(theirs)
	m := w.request(theirs, ike.Informational, 7, 0)
	w.wait(time.Second).again(m)
	if k := w.talk(); k.In.Requests != 0 || k.In.Retransmissions != 0 {
		t.Errorf("counted before this side spoke: %+v", k.In)
	}
	w.answer(theirs, ike.Informational, 7, 0)
	w.wait(time.Minute).request(theirs, ike.Informational, 8, 0)
	w.wait(ms)
	w.answer(theirs, ike.Informational, 8, 0)
	w.wait(time.Minute).request(ours, ike.Informational, 0, 72) // larger than what was seen
	w.answer(ours, ike.Informational, 0, 72)
	w.request(ours, ike.Informational, 1, 12) // by a delete
	w.answer(ours, ike.Informational, 1, 12)
	w.request(ours, ike.CreateChildSA, 2, 200)
	w.answer(ours, ike.CreateChildSA, 2, 160)
	k := w.talk()
	want := evidence.IKEDirection{
		Requests: 2, Retransmissions: 1, Answered: 2,
		DPD: evidence.IKEDPD{Requests: 2, Answered: 2, RTTs: []evidence.Seconds{evidence.Seconds(ms)}},
	}
	if d := cmp.Diff(want, k.In); d != "" {
		t.Errorf("in (-want +got):\n%s", d)
	}
	if d := cmp.Diff(evidence.IKEDirection{Requests: 3, Answered: 3, Deletes: 1}, k.Out); d != "" {
		t.Errorf("out (-want +got):\n%s", d)
	}
	if k.Rekeys != 1 || k.Newest.Known() || k.Attempts != 0 {
		t.Errorf("%+v", k)
	}
	// This side's answer alone shows that the IKE SA is, too.
	w = newWire(theirs)
	w.answer(theirs, ike.Informational, 7, 0)
	w.wait(time.Minute).request(theirs, ike.Informational, 8, 0)
	if k := w.talk(); k.In.DPD.Requests != 1 {
		t.Errorf("%+v", k)
	}
	// Messages that are older than it takes to give up no longer matter.
	w = newWire(theirs)
	m = w.request(theirs, ike.Informational, 7, 0)
	w.wait(time.Second).again(m)
	w.wait(time.Hour).request(ours, ike.Informational, 0, 0)
	if k := w.talk(); k.In.Requests != 0 || k.Out.Requests != 1 {
		t.Errorf("%+v", k)
	}
}

// TestForged sends what anyone can from the peer's address.
func TestForged(t *testing.T) {
	w := newWire(ours).establish()
	w.wait(time.Minute)
	ping := w.request(ours, ike.Informational, 2, 0)
	before := w.c.Snapshot(w.now)
	began := newest(t, before.Since(Reading{}))
	forge := func(i int) *wire {
		f := newWire(theirs)
		f.c, f.now = w.c, w.now
		f.spii, f.spir = ike.SPI{0xff, byte(i >> 16), byte(i >> 8), byte(i)}, ike.SPI{0xee, byte(i)}
		return f
	}
	for i := range 10000 {
		f := forge(i)
		switch i % 4 {
		case 0: // an SA that is not
			m := f.request(theirs, ike.Informational, 0, 0)
			f.again(m)
		case 1: // an answer
			f.answer(ours, ike.Informational, 2, 0)
		case 2: // a negotiation, and what it has no right to
			f.init(gcm, someKE, someNo)
			m := f.request(theirs, ike.Informational, 0, 0)
			f.again(m)
		case 3: // IKEv1
			f.send(theirs, ike.Message{Header: ike.Header{
				SPIi: f.spii, SPIr: f.spir, Version: ike.V1, Exchange: ike.InformationalV1, Flags: ike.FlagEncryptedV1, MessageID: uint32(i + 1),
			}, Ciphertext: make([]byte, 80)}.Append(nil))
			f.send(theirs, ike.Message{Header: ike.Header{
				SPIi: f.spii, SPIr: f.spir, Version: ike.V2, Exchange: ike.Informational, Flags: ike.FlagInitiator,
			}, Payloads: []ike.Payload{ike.Notify{Type: ike.NotifyType(20000 + i)}.Payload()}}.Append(nil))
		}
		w.wait(time.Millisecond)
	}
	w.wait(10 * time.Second)
	k := w.c.Snapshot(w.now).Since(before)
	if k.In.Requests != 2500 || k.In.Unanswered != 0 || k.In.DPD.Requests != 0 || k.In.Retransmissions != 0 { // the first messages
		t.Errorf("in: %+v", k.In)
	}
	if k.Out.Answered != 0 || k.Out.Unanswered != 0 {
		t.Errorf("out: %+v", k.Out)
	}
	if len(k.Notifies) > maxUnregistered {
		t.Errorf("%d notifies", len(k.Notifies))
	}
	if n := len(w.c.table.known) + len(w.c.table.strangers); n > 1+maxStrangers {
		t.Errorf("%d IKE SAs", n)
	}
	// The conversation goes on.
	w.again(ping)
	w.answer(ours, ike.Informational, 2, 0)
	k = w.c.Snapshot(w.now).Since(Reading{})
	if k.Out.DPD.Requests != 1 || k.Out.DPD.Answered+k.Out.DPD.Missed != 1 || k.Out.DPD.Trailing != 0 {
		t.Errorf("dead peer detection: %+v", k.Out.DPD)
	}
	if n := newest(t, k); n != began {
		t.Errorf("newest is %+v, and was %+v", n, began)
	}
	if len(k.Offers) != 2 || !k.Offers[0].Ours || k.Offers[0].Answered != evidence.Yes {
		t.Errorf("offers: %+v", k.Offers)
	}
}

// The table prefers what is hardest to forge.
func TestTable(t *testing.T) {
	w := newWire(ours).establish()
	first := w.c.table.known[0]
	for i := range 100 { // this side's own attempts, and answers to the peer's
		f := newWire(side(i % 2))
		f.c, f.now, f.spii, f.spir = w.c, w.now, ike.SPI{byte(i), 9}, ike.SPI{byte(i), 8}
		f.begin()
	}
	if len(w.c.table.known) != maxKnown || first != w.c.table.find(2, w.spii, w.spir) {
		t.Errorf("%d SAs, and the established one is %v", len(w.c.table.known), w.c.table.find(2, w.spii, w.spir))
	}
	for i := range 100 { // IKE SAs, one after the other
		f := newWire(ours)
		f.c, f.now, f.spii, f.spir = w.c, w.now, ike.SPI{byte(i), 7}, ike.SPI{byte(i), 6}
		f.establish()
	}
	if len(w.c.table.known) != maxKnown || w.c.table.find(2, w.spii, w.spir) != nil {
		t.Errorf("%d SAs, and the oldest one stays", len(w.c.table.known))
	}
}

// A window has what happened in it.
func TestSince(t *testing.T) {
	w := newWire(ours)
	w.init(gcm, someKE, someNo)
	w.initAnswer(none14)
	a := w.c.Snapshot(w.now)
	w.wait(time.Minute)
	b := w.c.Snapshot(w.now)
	if d := cmp.Diff(evidence.IKETalk{}, b.Since(a), cmp.AllowUnexported(evidence.Opt[evidence.IKENegotiation]{})); d != "" {
		t.Errorf("nothing happened (-want +got):\n%s", d)
	}
	all := b.Since(Reading{})
	if newest(t, all).Reached != refused || len(all.Offers) != 1 || all.Offers[0].Answered != evidence.No || len(all.Notifies) != 1 || all.Attempts != 1 {
		t.Errorf("%+v", all)
	}
	w.spii[0]++
	w.establish()
	for i := range 100 { // more than is kept
		w.wait(time.Second).request(ours, ike.Informational, uint32(2+i), 0)
		w.wait(time.Duration(i+1) * ms)
		w.answer(ours, ike.Informational, uint32(2+i), 0)
	}
	k := w.c.Snapshot(w.now).Since(b)
	if k.Attempts != 1 || newest(t, k).Reached != child || len(k.Offers) != 1 || k.Offers[0].Answered != evidence.Yes || k.Notifies != nil {
		t.Errorf("%+v", k)
	}
	if n := len(k.Out.DPD.RTTs); n != keptRTTs || k.Out.DPD.RTTs[n-1] != evidence.Seconds(100*ms) || k.Out.DPD.RTTs[0] != evidence.Seconds(37*ms) {
		t.Errorf("%d RTTs, %v", n, k.Out.DPD.RTTs)
	}
	// A miss that was before the window does not trail in it.
	m := w.wait(time.Second).request(ours, ike.Informational, 500, 0)
	w.wait(4 * time.Second).again(m)
	w.wait(4 * time.Second)
	c := w.c.Snapshot(w.now)
	if k := c.Since(b); k.Out.DPD.Trailing != 1 {
		t.Errorf("%+v", k.Out.DPD)
	}
	if k := w.c.Snapshot(w.now.Add(time.Minute)).Since(c); k.Out.DPD.Trailing != 0 {
		t.Errorf("%+v", k.Out.DPD)
	}
}

// Where blocks make a delete as long as an empty message, the moment tells.
func TestBlocks(t *testing.T) {
	w := newWire(ours)
	w.init(cbc, someKE, someNo)
	w.initAnswer(cbc, someKE, someNo)
	block := 80 - 57 // protected adds 57 bytes to n
	w.request(ours, ike.Auth, 1, 256-57)
	w.answer(ours, ike.Auth, 1, 224-57)
	info := func(from side, id uint32) {
		w.request(from, ike.Informational, id, block)
		w.wait(ms)
		w.answer(from, ike.Informational, id, block)
	}
	w.wait(30 * time.Second)
	info(ours, 2)
	w.wait(30*time.Second).request(ours, ike.CreateChildSA, 3, 300)
	w.answer(ours, ike.CreateChildSA, 3, 304-57)
	w.wait(time.Second + 10*ms)
	info(ours, 4) // deletes what was replaced
	w.wait(30 * time.Second)
	info(theirs, 0) // the last word
	k := w.talk()
	if k.Out.DPD.Requests != 1 || k.Out.Deletes != 1 || k.In.DPD.Requests != 1 || k.In.Deletes != 0 || k.Rekeys != 1 {
		t.Errorf("%+v", k)
	}
	w.wait(time.Second)
	w.spii[0]++
	w.begin()
	if k := w.talk(); k.In.Deletes != 1 || k.Out.Deletes != 1 {
		t.Errorf("%+v", k)
	}
}
