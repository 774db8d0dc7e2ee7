//go:build linux

package lab

import (
	"crypto/rand"
	"errors"
	"net"
	"time"

	"vpnprobe/internal/wire/ike"
)

// Knock begins count handshakes with gateway b, in the tunnel's version of
// IKE and with its plain proposal, each from another port of the node, and
// goes on with none of them.
func (n *Node) Knock(count int) {
	n.lab.t.Helper()
	for range count {
		if err := n.knock(firstMessage(n.lab.B.Tunnel)); err != nil {
			n.lab.t.Logf("lab: %s knocks at %s: %v", n.Name, n.lab.Peer(), err)
		}
	}
}

// knock sends a request, and sends a cookie back that it is answered with, as
// someone in earnest does.
func (n *Node) knock(request ike.Message) error {
	n.lab.t.Helper()
	conn := n.DialUDP(net.JoinHostPort(n.lab.Peer(), "500"))
	for {
		if _, err := conn.Write(request.Append(nil)); err != nil {
			return err
		}
		conn.SetReadDeadline(time.Now().Add(time.Second))
		buf := make([]byte, 4096)
		size, err := conn.Read(buf)
		if err != nil {
			return err
		}
		answer, err := ike.Parse(buf[:size])
		if err != nil {
			return err
		}
		cookie, ok := cookieOf(answer)
		if !ok {
			return nil
		}
		if request.Payloads[0].Type == ike.PayloadNotify {
			return errors.New("not even with the cookie")
		}
		request.Payloads = append([]ike.Payload{cookie}, request.Payloads...)
	}
}

// cookieOf returns the cookie that an answer asks to send back.
func cookieOf(m ike.Message) (ike.Payload, bool) {
	p, ok := m.First(ike.PayloadNotify)
	if !ok || len(m.Payloads) != 1 {
		return p, false
	}
	n, err := ike.ParseNotify(p.Body)
	return p, err == nil && n.Type == ike.Cookie
}

// firstMessage returns a first message that a peer of a tunnel accepts.
func firstMessage(t Tunnel) ike.Message {
	random := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b) // never fails
		b[0] = 1     // as a public value: neither 0 nor above the prime
		return b
	}
	const group, size = "modp2048", 256
	s := suites(t.IKE)[0]
	if t.Version == 1 {
		attributes, _ := ike.PhaseOneOf(s.encryption, s.integrity, group)
		attributes = append(attributes, ike.Attribute{Type: ike.AttrV1Auth, Value: ike.AuthV1SharedKey})
		return ike.Message{
			Header: ike.Header{SPIi: ike.SPI(random(8)), Version: ike.V1, Exchange: ike.IdentityProtectionV1},
			Payloads: []ike.Payload{ike.SAV1{DOI: ike.DOIIPsec, Situation: ike.SituationIdentity, Proposals: []ike.ProposalV1{{
				Protocol: ike.ProtocolIKE, Transforms: []ike.TransformV1{{ID: ike.TransformKeyIKE, Attributes: attributes}},
			}}}.Payload()},
		}
	}
	var transforms []ike.Transform
	for _, word := range []string{s.encryption, s.integrity, "prf" + s.integrity, group} {
		transform, _ := ike.TransformOf(word)
		transforms = append(transforms, transform)
	}
	return ike.Message{
		Header: ike.Header{SPIi: ike.SPI(random(8)), Version: ike.V2, Exchange: ike.SAInit, Flags: ike.FlagInitiator},
		Payloads: []ike.Payload{
			ike.SA(ike.Proposal{Protocol: ike.ProtocolIKE, Transforms: transforms}),
			ike.KE(ike.GroupMODP2048, random(size)),
			ike.Nonce(random(32)),
		},
	}
}
