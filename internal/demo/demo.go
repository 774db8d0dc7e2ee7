// Package demo plays gateways on loopback that behave well and badly, so that
// the agent can be seen at work without a VPN.
package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vpnprobe/internal/wire/ike"
)

// Behaviour is what a demonstration gateway does with IKE on one port.
type Behaviour int

// The behaviours.
const (
	Closed  Behaviour = iota // nothing listens: the kernel refuses
	Answers                  // as RFC 7296 section 2.5 wants
	Silent                   // as behind a firewall that drops
)

// Gateway is one demonstration gateway.
type Gateway struct {
	Name    string
	Address netip.Addr // of the loopback range
	IKE     Behaviour  // on UDP 500
	NATT    Behaviour  // on UDP 4500
}

// Gateways returns those of the demonstration.
func Gateways() []Gateway {
	return []Gateway{
		{"healthy", netip.MustParseAddr("127.0.50.1"), Answers, Answers},
		{"daemon-stopped", netip.MustParseAddr("127.0.50.2"), Closed, Closed},
		{"firewalled", netip.MustParseAddr("127.0.50.3"), Silent, Silent},
		{"healthy-then-stopped", netip.MustParseAddr("127.0.50.4"), Answers, Answers},
	}
}

// Ports replace UDP 500 and 4500, which need a privilege.
var Ports = map[uint16]uint16{500: 10500, 4500: 14500}

// Play runs the gateways until ctx ends. The gateway named
// "healthy-then-stopped" works and is stopped, turn by turn, each for the
// given time.
func Play(ctx context.Context, gateways []Gateway, turn time.Duration) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, g := range gateways {
		for _, p := range []struct {
			port uint16
			does Behaviour
		}{{500, g.IKE}, {4500, g.NATT}} {
			if p.does == Closed {
				continue
			}
			r := responder{netip.AddrPortFrom(g.Address, Ports[p.port]), p.port == 4500, p.does}
			conn, err := r.listen()
			if err != nil {
				return fmt.Errorf("demo gateway %s: %w", g.Name, err)
			}
			if g.Name == "healthy-then-stopped" {
				wg.Go(func() { r.comeAndGo(ctx, conn, turn) })
			} else {
				wg.Go(func() { r.serve(ctx, conn) })
			}
		}
	}
	<-ctx.Done()
	return nil
}

// responder answers heartbeats on one port.
type responder struct {
	at     netip.AddrPort
	marker bool // framed as on UDP 4500 (RFC 3948 section 2.2)
	does   Behaviour
}

func (r responder) listen() (*net.UDPConn, error) {
	return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(r.at))
}

// comeAndGo serves every second turn.
func (r responder) comeAndGo(ctx context.Context, conn *net.UDPConn, turn time.Duration) {
	for ctx.Err() == nil {
		if conn != nil {
			up, cancel := context.WithTimeout(ctx, turn)
			r.serve(up, conn)
			cancel()
		}
		select {
		case <-ctx.Done():
		case <-time.After(turn):
			conn, _ = r.listen() // tried again at the next turn
		}
	}
}

// serve answers until ctx ends, and closes the socket.
func (r responder) serve(ctx context.Context, conn *net.UDPConn) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil || r.does == Silent {
			continue
		}
		if out := r.answer(buf[:n]); out != nil {
			conn.WriteToUDPAddrPort(out, from)
		}
	}
}

// answer returns what a responder that has a configuration for us says to a
// request that it cannot accept, or nil to what is none.
func (r responder) answer(b []byte) []byte {
	if r.marker {
		var ok bool
		if b, ok = ike.CutNonESPMarker(b); !ok {
			return nil
		}
	}
	h, err := ike.ParseHeader(b)
	if err != nil || h.Flags&ike.FlagResponse != 0 {
		return nil
	}
	says := ike.Notify{Type: ike.NoProposalChosen}
	if h.Version.Major() > ike.V2.Major() {
		says.Type = ike.InvalidMajorVersion
	} else if offersAES(b) { // with a KE payload of a group that it does not offer
		says = ike.Notify{Type: ike.InvalidKEPayload, Data: binary.BigEndian.AppendUint16(nil, ike.GroupMODP2048)}
	}
	reply := ike.Message{
		Header:   ike.Header{SPIi: h.SPIi, Version: ike.V2, Exchange: h.Exchange, Flags: ike.FlagResponse, MessageID: h.MessageID},
		Payloads: []ike.Payload{says.Payload()},
	}
	var out []byte
	if r.marker {
		out = ike.AppendNonESPMarker(out)
	}
	return reply.Append(out)
}

// offersAES reports whether a message offers AES-CBC, which everybody takes.
func offersAES(b []byte) bool {
	m, err := ike.Parse(b)
	if err != nil {
		return false
	}
	sa, _ := m.First(ike.PayloadSA)
	proposals, err := ike.ParseSA(sa.Body)
	return err == nil && slices.ContainsFunc(proposals, func(p ike.Proposal) bool {
		return slices.ContainsFunc(p.Transforms, func(t ike.Transform) bool {
			return t.Type == ike.TransformEncryption && t.ID == ike.EncrAESCBC
		})
	})
}
