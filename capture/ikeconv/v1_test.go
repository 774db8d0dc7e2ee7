package ikeconv

import (
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// v1 sends a message of IKEv1 in clear.
func (w *wire) v1(from side, x ike.ExchangeType, responder bool, payloads ...ike.Payload) Message {
	m := ike.Message{Header: ike.Header{SPIi: w.spii, Version: ike.V1, Exchange: x}, Payloads: payloads}
	if responder {
		m.SPIr = w.spir
	}
	return w.send(from, m.Append(nil))
}

// v1Encrypted sends an encrypted message of IKEv1 of a size.
func (w *wire) v1Encrypted(from side, x ike.ExchangeType, id uint32, size int) Message {
	w.salt++
	body := make([]byte, size-ike.HeaderLen)
	body[0] = w.salt
	return w.send(from, ike.Message{Header: ike.Header{
		SPIi: w.spii, SPIr: w.spir, Version: ike.V1, Exchange: x, Flags: ike.FlagEncryptedV1, MessageID: id,
	}, Ciphertext: body}.Append(nil))
}

func saV1(suites ...[3]string) ike.Payload {
	p := ike.ProposalV1{Protocol: ike.ProtocolIKE}
	for _, s := range suites {
		list, ok := ike.PhaseOneOf(s[0], s[1], s[2])
		if !ok {
			panic(s[0])
		}
		p.Transforms = append(p.Transforms, ike.TransformV1{ID: ike.TransformKeyIKE, Attributes: list})
	}
	return ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{p}}.Payload()
}

var aesV1 = saV1([3]string{"aes256", "sha256", "modp2048"})

// mainMode is main mode up to message 4.
func (w *wire) mainMode() *wire {
	w.v1(w.initiator, ike.IdentityProtectionV1, false, aesV1)
	w.v1(w.initiator.other(), ike.IdentityProtectionV1, true, aesV1)
	w.v1(w.initiator, ike.IdentityProtectionV1, true, ike.KEV1(make([]byte, 256)), ike.NonceV1(make([]byte, 32)))
	w.v1(w.initiator.other(), ike.IdentityProtectionV1, true, ike.KEV1(make([]byte, 256)), ike.NonceV1(make([]byte, 32)))
	return w
}

// phaseOneDone is main mode to its end.
func (w *wire) phaseOneDone() *wire {
	w.mainMode()
	w.v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92)
	w.v1Encrypted(w.initiator.other(), ike.IdentityProtectionV1, 0, 92)
	return w
}

func (w *wire) quickMode(from side, id uint32) *wire {
	w.v1Encrypted(from, ike.QuickModeV1, id, 188)
	w.v1Encrypted(from.other(), ike.QuickModeV1, id, 188)
	w.v1Encrypted(from, ike.QuickModeV1, id, 76)
	return w
}

const pingV1 = 108 // R-U-THERE by aes256-sha256

func TestNegotiationV1(t *testing.T) {
	no14 := ike.NotifyV1{DOI: ike.DOIIPsec, Protocol: ike.ProtocolIKE, Type: 14}.Payload()
	for _, tt := range []struct {
		name   string
		say    func(w *wire)
		want   evidence.IKEReached
		notify string
		rekeys [2]uint64
	}{
		{name: "nobody there", want: evidence.ReachedAsked, say: func(w *wire) { w.v1(w.initiator, ike.IdentityProtectionV1, false, aesV1) }},
		{name: "no proposal", want: refused, notify: "NO-PROPOSAL-CHOSEN", say: func(w *wire) {
			w.v1(w.initiator, ike.IdentityProtectionV1, false, aesV1)
			w.v1(w.initiator.other(), ike.InformationalV1, true, no14)
		}},
		{name: "messages 1 to 4", want: evidence.ReachedInit, say: func(w *wire) { w.mainMode() }},
		{name: "message 5", want: authSent, say: func(w *wire) { w.mainMode().v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92) }},
		{name: "message 5, in vain", want: rejected, say: func(w *wire) {
			m := w.mainMode().v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92)
			w.wait(4 * time.Second).again(m)
			w.wait(time.Second)
		}},
		{name: "message 5 by another port, in vain", want: authSent, say: func(w *wire) {
			w.mainMode().natt = true
			m := w.v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92)
			w.wait(4 * time.Second).again(m)
			w.wait(time.Second)
		}},
		{name: "message 5, in vain at first", want: ikeOnly, say: func(w *wire) {
			m := w.mainMode().v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92)
			w.wait(4 * time.Second).again(m)
			w.wait(2*time.Second).v1Encrypted(w.initiator.other(), ike.IdentityProtectionV1, 0, 92)
		}},
		{name: "message 5 refused", want: rejected, say: func(w *wire) {
			w.mainMode().v1Encrypted(w.initiator, ike.IdentityProtectionV1, 0, 92)
			w.v1Encrypted(w.initiator.other(), ike.InformationalV1, 7, 76)
		}},
		{name: "message 6", want: ikeOnly, say: func(w *wire) { w.phaseOneDone() }},
		{name: "message 6 refused", want: rejected, say: func(w *wire) { w.phaseOneDone().v1Encrypted(w.initiator, ike.InformationalV1, 7, 76) }},
		{name: "an initial contact behind message 6", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) {
			w.phaseOneDone().v1Encrypted(w.initiator, ike.InformationalV1, 7, 92)
			w.quickMode(w.initiator, 8)
		}},
		{name: "quick mode", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) { w.phaseOneDone().quickMode(w.initiator, 8) }},
		{name: "quick mode of the responder's", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) { w.phaseOneDone().quickMode(w.initiator.other(), 8) }},
		{name: "quick mode refused", want: ikeOnly, rekeys: [2]uint64{0, 1}, say: func(w *wire) {
			m := w.phaseOneDone().v1Encrypted(w.initiator, ike.QuickModeV1, 8, 188)
			w.v1Encrypted(w.initiator.other(), ike.InformationalV1, 9, 76)
			w.again(m)
			w.v1Encrypted(w.initiator.other(), ike.InformationalV1, 10, 76)
			w.wait(time.Minute)
		}},
		{name: "quick mode in vain", want: ikeOnly, rekeys: [2]uint64{0, 1}, say: func(w *wire) {
			m := w.phaseOneDone().v1Encrypted(w.initiator, ike.QuickModeV1, 8, 188)
			w.wait(4 * time.Second).again(m)
			w.wait(time.Minute)
		}},
		{name: "quick mode, its third message due", want: ikeOnly, say: func(w *wire) {
			w.phaseOneDone().v1Encrypted(w.initiator, ike.QuickModeV1, 8, 188)
			w.v1Encrypted(w.initiator.other(), ike.QuickModeV1, 8, 188)
			w.wait(time.Minute)
		}},
		{name: "quick mode, all messages twice", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) {
			w.phaseOneDone()
			for _, m := range []Message{
				w.v1Encrypted(w.initiator, ike.QuickModeV1, 8, 188), w.v1Encrypted(w.initiator.other(), ike.QuickModeV1, 8, 188),
				w.v1Encrypted(w.initiator, ike.QuickModeV1, 8, 76),
			} {
				w.again(m)
			}
		}},
		{name: "aggressive mode", want: authSent, say: func(w *wire) { w.aggressive() }},
		{name: "aggressive mode, refused by the initiator", want: rejected, notify: "INVALID-HASH-INFORMATION", say: func(w *wire) {
			w.v1(w.initiator, ike.AggressiveV1, false, aesV1)
			w.v1(w.initiator.other(), ike.AggressiveV1, true, aesV1)
			w.v1(w.initiator, ike.InformationalV1, true, ike.NotifyV1{DOI: ike.DOIIPsec, Protocol: ike.ProtocolIKE, Type: 23}.Payload())
		}},
		{name: "aggressive mode, quick mode", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) { w.aggressive().quickMode(w.initiator, 8) }},
		{name: "aggressive mode, quick mode refused", want: ikeOnly, rekeys: [2]uint64{0, 1}, say: func(w *wire) {
			w.aggressive().v1Encrypted(w.initiator, ike.QuickModeV1, 8, 188)
			w.v1Encrypted(w.initiator.other(), ike.InformationalV1, 9, 76)
		}},
		{name: "the IKE SA renewed, its child kept", want: child, rekeys: [2]uint64{1, 0}, say: func(w *wire) {
			w.phaseOneDone().quickMode(w.initiator, 8)
			w.spii[0], w.spir[0] = 77, 78
			w.wait(time.Hour).phaseOneDone()
		}},
		{name: "the IKE SA renewed, its new child refused", want: ikeOnly, rekeys: [2]uint64{1, 1}, say: func(w *wire) {
			w.phaseOneDone().quickMode(w.initiator, 8)
			w.spii[0], w.spir[0] = 77, 78
			w.wait(time.Hour).phaseOneDone().v1Encrypted(w.initiator, ike.QuickModeV1, 9, 188)
			w.v1Encrypted(w.initiator.other(), ike.InformationalV1, 10, 76)
		}},
	} {
		for _, by := range [2]side{ours, theirs} {
			w := newWire(by)
			tt.say(w)
			k := w.talk()
			n := newest(t, k)
			if n.Reached != tt.want || n.Notify != tt.notify || n.Version != 1 || n.Ours != (by == ours) {
				t.Errorf("%s: %+v, want %q %q", tt.name, n, tt.want, tt.notify)
			}
			if got := [2]uint64{k.Rekeys, k.RekeysFailed}; got != tt.rekeys {
				t.Errorf("%s: %d quick modes and failed ones, want %d", tt.name, got, tt.rekeys)
			}
		}
	}
}

// aggressive is aggressive mode to its end.
func (w *wire) aggressive() *wire {
	w.v1(w.initiator, ike.AggressiveV1, false, aesV1)
	w.v1(w.initiator.other(), ike.AggressiveV1, true, aesV1)
	w.v1Encrypted(w.initiator, ike.AggressiveV1, 0, 108)
	return w
}

func TestPings(t *testing.T) {
	ping := func(w *wire, from side) { w.v1Encrypted(from, ike.InformationalV1, 1000+uint32(w.salt), pingV1) }
	for _, tt := range []struct {
		name    string
		say     func(w *wire)
		out, in [3]uint64 // pings, answered, missed
	}{
		{"acknowledged", func(w *wire) { ping(w, ours); w.wait(ms); ping(w, theirs); w.wait(time.Minute) }, [3]uint64{1, 1, 0}, [3]uint64{}},
		{"alone", func(w *wire) { ping(w, ours); w.wait(time.Minute) }, [3]uint64{}, [3]uint64{}},
		{"missed", func(w *wire) {
			ping(w, theirs)
			w.wait(30 * time.Second)
			ping(w, theirs)
			w.wait(30 * time.Second)
			ping(w, theirs)
			w.wait(ms)
			ping(w, ours)
			w.wait(time.Minute)
		}, [3]uint64{}, [3]uint64{3, 1, 2}},
		{"repeated", func(w *wire) {
			ping(w, ours)
			w.wait(2 * time.Second)
			ping(w, ours)
			w.wait(3 * time.Second)
		}, [3]uint64{1, 0, 1}, [3]uint64{}},
		{"crossing", func(w *wire) {
			ping(w, ours)
			w.wait(ms)
			ping(w, theirs)
			ping(w, ours)
			ping(w, theirs)
			w.wait(time.Minute)
		}, [3]uint64{1, 1, 0}, [3]uint64{1, 1, 0}},
		{"answered by a ping that is answered", func(w *wire) {
			for range 2 {
				ping(w, ours)
				w.wait(70 * ms)
				ping(w, theirs)
				w.wait(ms)
				ping(w, ours) // acknowledges it
				w.wait(30 * time.Second)
			}
		}, [3]uint64{1, 0, 1}, [3]uint64{2, 2, 0}},
		{"a gap", func(w *wire) {
			ping(w, ours)
			w.wait(2 * time.Second)
			ping(w, ours)
			w.c.Gap()
			w.wait(time.Minute)
		}, [3]uint64{}, [3]uint64{}},
		{"another length", func(w *wire) {
			for range 3 {
				w.v1Encrypted(ours, ike.InformationalV1, 9, 92)
				w.wait(time.Minute)
			}
		}, [3]uint64{}, [3]uint64{}},
	} {
		w := newWire(ours).phaseOneDone().quickMode(ours, 8)
		w.wait(time.Minute)
		tt.say(w)
		k := w.talk()
		get := func(d evidence.IKEDPD) [3]uint64 { return [3]uint64{d.Requests, d.Answered, d.Missed} }
		if out, in := get(k.Out.DPD), get(k.In.DPD); out != tt.out || in != tt.in {
			t.Errorf("%s: %d out and %d in, want %d and %d", tt.name, out, in, tt.out, tt.in)
		}
	}
}

// Without the suite, the first pair only shows the length of a ping.
func TestPingsMiddle(t *testing.T) {
	w := newWire(ours)
	for range 3 {
		w.v1Encrypted(theirs, ike.InformationalV1, 1000+uint32(w.salt), 92)
		w.wait(ms).v1Encrypted(ours, ike.InformationalV1, 1000+uint32(w.salt), 92)
		w.wait(time.Minute)
	}
	if k := w.talk(); k.In.DPD.Answered != 2 || k.Out.DPD.Requests != 0 {
		t.Errorf("%+v", k)
	}
}

func TestOffersV1(t *testing.T) {
	w := newWire(ours)
	w.v1(ours, ike.IdentityProtectionV1, false, saV1([3]string{"aes256", "sha256", "modp2048"}, [3]string{"aes128", "sha256", "modp2048"}, [3]string{"3des", "sha1", "modp2048"}))
	k := w.talk()
	if len(k.Offers) != 1 {
		t.Fatalf("%+v", k.Offers)
	}
	o := k.Offers[0]
	if o.Version != 1 || o.Proposals != 3 || o.Text != "aes256-sha256-modp2048,aes128-sha256-modp2048,3des-sha1-modp2048" ||
		len(o.Multiple) != 2 || o.Multiple[0] != "encryption" || o.Multiple[1] != "integrity" || o.Answered != evidence.Unknown {
		t.Errorf("%+v", o)
	}
}
