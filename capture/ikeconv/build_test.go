package ikeconv

import (
	"encoding/binary"
	"testing"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
)

// wire builds the messages of one conversation, in virtual time.
type wire struct {
	c          *Conversation
	now        time.Time
	spii, spir ike.SPI
	initiator  side
	natt       bool
	salt       byte // makes protected messages of the same length differ
}

func newWire(initiator side) *wire {
	return &wire{
		c: New(), now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), initiator: initiator,
		spii: ike.SPI{1, 2, 3, 4, 5, 6, 7, 8}, spir: ike.SPI{8, 7, 6, 5, 4, 3, 2, 1},
	}
}

// wait lets time pass.
func (w *wire) wait(d time.Duration) *wire { w.now = w.now.Add(d); return w }

// talk returns all that was said so far.
func (w *wire) talk() evidence.IKETalk { return w.c.Snapshot(w.now).Since(Reading{}) }

// send shows a message to the conversation and returns it.
func (w *wire) send(from side, b []byte) Message {
	m := Message{Time: w.now, Ours: from == ours, LocalPort: port, RemotePort: port, NATT: w.natt, Data: b, Size: len(b)}
	if w.natt {
		m.LocalPort, m.RemotePort = portNATT, portNATT
	}
	w.c.Add(m)
	return m
}

// again shows a message once more.
func (w *wire) again(m Message) { m.Time = w.now; w.c.Add(m) }

// flags returns those of a message of IKEv2.
func (w *wire) flags(from side, response bool) (f ike.Flags) {
	if from == w.initiator {
		f |= ike.FlagInitiator
	}
	if response {
		f |= ike.FlagResponse
	}
	return f
}

// init sends an IKE_SA_INIT request of the initiator's.
func (w *wire) init(payloads ...ike.Payload) Message {
	return w.send(w.initiator, ike.Message{Header: ike.Header{
		SPIi: w.spii, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator,
	}, Payloads: payloads}.Append(nil))
}

// initAnswer sends the responder's answer to it.
func (w *wire) initAnswer(payloads ...ike.Payload) Message {
	return w.send(w.initiator.other(), ike.Message{Header: ike.Header{
		SPIi: w.spii, SPIr: w.spir, Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagResponse,
	}, Payloads: payloads}.Append(nil))
}

// protected returns a message of IKEv2 whose protected payloads have n bytes,
// by AES-GCM: it has n+57.
func (w *wire) protected(from side, x ike.ExchangeType, id uint32, response bool, n int) []byte {
	w.salt++
	body := make([]byte, 8+n+1+16)
	body[0] = w.salt
	return ike.Message{Header: ike.Header{
		SPIi: w.spii, SPIr: w.spir, Version: ike.V2, Exchange: x, Flags: w.flags(from, response), MessageID: id,
	}, Payloads: []ike.Payload{{Type: ike.PayloadEncrypted, Body: body}}}.Append(nil)
}

func (w *wire) request(from side, x ike.ExchangeType, id uint32, n int) Message {
	return w.send(from, w.protected(from, x, id, false, n))
}

// answer sends the other side's answer to a request of a side.
func (w *wire) answer(from side, x ike.ExchangeType, id uint32, n int) Message {
	return w.send(from.other(), w.protected(from.other(), x, id, true, n))
}

// part sends a fragment of a protected request.
func (w *wire) part(from side, x ike.ExchangeType, id uint32, response bool, number, total uint16) Message {
	w.salt++
	body := make([]byte, 400)
	body[0] = w.salt
	return w.send(from, ike.Message{Header: ike.Header{
		SPIi: w.spii, SPIr: w.spir, Version: ike.V2, Exchange: x, Flags: w.flags(from, response), MessageID: id,
	}, Payloads: []ike.Payload{ike.Fragment{Number: number, Total: total, Body: body}.Payload(0)}}.Append(nil))
}

func proposal(words ...string) ike.Proposal {
	p := ike.Proposal{Protocol: ike.ProtocolIKE}
	for _, word := range words {
		t, ok := ike.TransformOf(word)
		if !ok {
			panic(word)
		}
		p.Transforms = append(p.Transforms, t)
	}
	return p
}

var (
	gcm     = ike.SA(proposal("aes256gcm16", "prfsha256", "ecp256"))
	cbc     = ike.SA(proposal("aes256", "sha256", "prfsha256", "modp2048"))
	someKE  = ike.KE(ike.GroupECP256, make([]byte, 64))
	someNo  = ike.Nonce(make([]byte, 32))
	cookie  = ike.Notify{Type: ike.Cookie, Data: []byte("cookie")}.Payload()
	wrongKE = ike.Notify{Type: ike.InvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, ike.GroupMODP2048)}.Payload()
	none14  = ike.Notify{Type: ike.NoProposalChosen}.Payload()
)

// begin negotiates an IKE_SA_INIT with AES-GCM, of which every length is known.
func (w *wire) begin() *wire {
	w.init(gcm, someKE, someNo)
	w.initAnswer(gcm, someKE, someNo)
	return w
}

// establish sets up an IKE SA with a child.
func (w *wire) establish() *wire {
	w.begin()
	w.request(w.initiator, ike.Auth, 1, 230)
	w.answer(w.initiator, ike.Auth, 1, 173)
	return w
}

// newest returns the newest negotiation, which must be there.
func newest(t *testing.T, k evidence.IKETalk) evidence.IKENegotiation {
	t.Helper()
	n, ok := k.Newest.Get()
	if !ok {
		t.Fatal("no negotiation")
	}
	return n
}
