package capture

import "encoding/binary"

// cutter decides how much of a frame a recording keeps: what a diagnosis needs,
// and nothing that a user of the tunnel sent, encrypted or not. IKE is kept
// whole. Of ESP and AH the headers with the SPI and the sequence number are
// kept, of packets in clear the IP header and the transport header, and an
// ICMP error is cut as the packet that it quotes would be.
//
// A later fragment of UDP is kept whole if it continues a packet of IKE.
type cutter struct {
	parts [16]part // of IKE in fragments, the newest at next-1
	next  int
}

// part identifies the fragments of one packet.
type part struct {
	src, dst [16]byte
	ident    uint32
}

const ahHeader = 12 // up to the sequence number, RFC 4302 section 2

// keep returns how many bytes of the frame are recorded; 0 is none at all.
func (c *cutter) keep(f Frame) int {
	h, ok := f.Link.strip(f.Data)
	if !ok {
		return 0
	}
	var p packet
	if !p.parse(f.Data[h.offset:], max(f.WireLen, len(f.Data))-h.offset) {
		return 0
	}
	return min(startOf(f.Data, p.payload)+c.payload(&p), len(f.Data))
}

// startOf returns where a part of a frame begins that reaches to the end of the
// frame's memory, however short it was cut since.
func startOf(frame, part []byte) int { return cap(frame) - cap(part) }

// payload returns how much is kept of what follows the IP header.
func (c *cutter) payload(p *packet) int {
	switch k, _ := p.classify(); {
	case k == kindIKE || k == kindKeepalive:
		if p.more {
			c.parts[c.next%len(c.parts)] = partOf(p)
			c.next++
		}
		return len(p.payload)
	case k == kindUDPFragment:
		id := partOf(p)
		for i := range c.parts {
			if c.next > i && c.parts[i] == id {
				return len(p.payload)
			}
		}
		return 0
	case p.later():
		return 0
	}
	const tcp = 6
	switch p.proto {
	case protoESP:
		return espHeader
	case protoAH:
		return ahHeader
	case protoICMP, protoICMPv6:
		if quoted, _, ok := p.icmpError(); ok {
			return startOf(p.payload, quoted.payload) + c.payload(&quoted)
		}
		return icmpHeader
	case tcp:
		return tcpHeader(p.payload)
	case protoUDP:
		return udpHeader(p.payload)
	}
	return 0
}

func partOf(p *packet) (id part) {
	copy(id.src[:], p.src)
	copy(id.dst[:], p.dst)
	id.ident = p.ident
	return id
}

// udpHeader returns how much of a UDP datagram is kept that is not a valid
// message of IKE: all of it on port 500, where there is nothing but IKE.
func udpHeader(b []byte) int {
	if len(b) < 8 {
		return len(b)
	}
	src, dst := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	switch {
	case src == portIKE || dst == portIKE:
		return len(b)
	case src == portNATT || dst == portNATT:
		return 8 + espHeader
	}
	return 8
}

// tcpHeader returns the length of a TCP header with its options.
func tcpHeader(b []byte) int {
	const smallest, offset = 20, 12
	if len(b) <= offset {
		return len(b)
	}
	return max(int(b[offset]>>4)*4, smallest)
}
