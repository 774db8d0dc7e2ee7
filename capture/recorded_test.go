package capture

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Packets for files, which gopacket builds: this side, the peer, a router.
var (
	fileHost   = netip.MustParseAddr("203.0.113.2")
	filePeer   = netip.MustParseAddr("198.51.100.2")
	fileHost6  = netip.MustParseAddr("2001:db8:1::2")
	filePeer6  = netip.MustParseAddr("2001:db8:2::2")
	fileRouter = netip.MustParseAddr("192.0.2.1")
	fileEpoch  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

// builtIP is an IP packet. payload is what follows the IP header.
func builtIP(t testing.TB, src, dst netip.Addr, proto layers.IPProtocol, payload []byte) []byte {
	t.Helper()
	var ip gopacket.SerializableLayer = &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	if src.Is6() {
		ip = &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// builtFragment is a part of an IPv4 packet; offset is in bytes.
func builtFragment(t testing.TB, src, dst netip.Addr, proto layers.IPProtocol, id uint16, offset int, more bool, payload []byte) []byte {
	b := builtIP(t, src, dst, proto, payload)
	binary.BigEndian.PutUint16(b[4:], id)
	v := uint16(offset / 8)
	if more {
		v |= 0x2000
	}
	binary.BigEndian.PutUint16(b[6:], v)
	return b
}

func builtUDP(src, dst uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, src)
	b = binary.BigEndian.AppendUint16(b, dst)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(data)))
	return append(append(b, 0, 0), data...)
}

// builtESP is ESP with n bytes of payload, which read "secret".
func builtESP(spi, seq uint32, n int) []byte {
	b := binary.BigEndian.AppendUint32(nil, spi)
	b = binary.BigEndian.AppendUint32(b, seq)
	return append(b, secret(n)...)
}

func secret(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "secret"[i%6]
	}
	return b
}

// builtIKE is a message of IKEv2 with n bytes behind the header.
func builtIKE(exchange, flags byte, id uint32, n int) []byte {
	b := make([]byte, 28, 28+n)
	copy(b, "initiatorresponde")
	b[16], b[17], b[18], b[19] = 41, 0x20, exchange, flags
	binary.BigEndian.PutUint32(b[20:], id)
	binary.BigEndian.PutUint32(b[24:], uint32(28+n))
	body := make([]byte, n)
	for i := range body {
		body[i] = byte(i)
	}
	if n >= 4 { // one notify payload
		body[0], body[1] = 0, 0
		binary.BigEndian.PutUint16(body[2:], uint16(n))
	}
	return append(b, body...)
}

func builtEther(ip []byte) []byte {
	b := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
	if ip[0]>>4 == 6 {
		b[12], b[13] = 0x86, 0xdd
	}
	return append(b, ip...)
}

// builtFrames are Ethernet frames of some kinds, one second apart.
func builtFrames(t testing.TB) []Frame {
	t.Helper()
	var out []Frame
	for i, f := range []struct {
		ip       []byte
		outgoing bool
	}{
		{builtIP(t, fileHost, filePeer, layers.IPProtocolESP, builtESP(0xaaaa, 1, 72)), true},
		{builtIP(t, filePeer, fileHost, layers.IPProtocolESP, builtESP(0xbbbb, 1, 72)), false},
		{builtIP(t, filePeer, fileHost, layers.IPProtocolUDP, builtUDP(500, 500, builtIKE(34, 0x08, 0, 200))), false},
		{builtIP(t, fileHost6, filePeer6, layers.IPProtocolUDP, builtUDP(4500, 4500, builtESP(0xcccc, 7, 31))), true},
	} {
		frame := builtEther(f.ip)
		out = append(out, Frame{Data: frame, Link: LinkEthernet, Outgoing: f.outgoing, WireLen: len(frame), Time: fileEpoch.Add(time.Duration(i) * time.Second)})
	}
	return out
}
