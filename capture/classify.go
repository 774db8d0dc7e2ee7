package capture

import (
	"encoding/binary"

	"vpnprobe/internal/wire/ike"
)

// kind is what an IP packet carries.
type kind uint8

const (
	kindNone kind = iota // nothing that is counted
	kindESP
	kindAH
	kindESPInUDP
	kindIKE
	kindKeepalive
	kindUDPFragment // of UDP, without the ports: IKE or ESP as it seems
)

const (
	portIKE  = 500
	portNATT = 4500

	espHeader = 8  // SPI and sequence number, RFC 4303 section 2
	ikeHeader = 28 // RFC 7296 section 3.1; in IKEv1 too, RFC 2408 section 3.1
)

// classify says what p carries and, for IKE, of which exchange.
func (p *packet) classify() (kind, exchange) {
	switch p.proto {
	case protoESP:
		return kindESP, 0
	case protoAH:
		return kindAH, 0
	case protoUDP:
		if p.later() {
			return kindUDPFragment, 0
		}
		return p.classifyUDP()
	}
	return kindNone, 0
}

func (p *packet) classifyUDP() (kind, exchange) {
	if len(p.payload) < 8 {
		return kindNone, 0
	}
	src := binary.BigEndian.Uint16(p.payload)
	dst := binary.BigEndian.Uint16(p.payload[2:])
	data := p.payload[8:]
	switch {
	case !ikePort(src) && !ikePort(dst):
		return kindNone, 0
	case !viaNATT(src, dst):
		return classifyIKE(data)
	}
	// RFC 3948, section 2: one byte FF is a keepalive; four zero bytes, which
	// no SPI can be, come before IKE; all else is ESP.
	switch {
	case len(data) == 1 && data[0] == 0xff:
		return kindKeepalive, 0
	case len(data) < espHeader:
		return kindNone, 0
	case binary.BigEndian.Uint32(data) == 0:
		return classifyIKE(data[4:])
	}
	return kindESPInUDP, 0
}

func ikePort(port uint16) bool { return port == portIKE || port == portNATT }

// viaNATT reports whether what passes between two ports, one of which is IKE's,
// is in the form of RFC 3948.
func viaNATT(src, dst uint16) bool {
	return dst != portIKE && (src != portIKE || dst == portNATT)
}

// nonESP reports whether an IKE message has the non-ESP marker before it.
func (p *packet) nonESP() bool {
	return viaNATT(binary.BigEndian.Uint16(p.payload), binary.BigEndian.Uint16(p.payload[2:]))
}

func classifyIKE(b []byte) (kind, exchange) {
	if len(b) < ikeHeader {
		return kindNone, 0
	}
	return kindIKE, exchangeOf(b[17]>>4, ike.ExchangeType(b[18]))
}
