package esp

// Lengths in bytes of what ESP surrounds a packet with.
const (
	ipv4Header = 20
	ipv6Header = 40
	udpHeader  = 8 // RFC 3948, section 2.1
	spiAndSeq  = 8 // RFC 4303, section 2
	trailer    = 2 // pad length and next header
	minAlign   = 4 // RFC 4303, section 2.4: the ICV begins on a 32-bit boundary
	tcpHeader  = 20
)

// Outer is the form of the packets that carry ESP. An extended sequence number
// is not part of it: only its lower half is on the wire (RFC 4303, section
// 2.2.1), so that it costs nothing.
type Outer struct {
	V6   bool // the gateways speak IPv6 with each other
	NATT bool // in UDP (RFC 3948)
	// Transport is transport mode: the packet keeps its own IP header, without
	// options or extension headers.
	Transport bool
}

// Sum leads from the MTU outside ESP to the MTU inside. All terms are in bytes.
type Sum struct {
	MTU     int // outside: the largest packet that the underlay carries
	OuterIP int // in transport mode the packet's own header
	UDP     int
	Header  int // SPI and sequence number
	IV      int
	ICV     int
	Align   int // what is encrypted is padded to a multiple of this
	Trailer int // pad length and next header, which are encrypted too
	// Inner is the largest packet in clear that fits, IP header included, or 0
	// if none does. In transport mode too it includes the IP header, which ESP
	// then does not add.
	Inner int
	// MSS4 and MSS6 are the largest TCP payloads of an IPv4 and an IPv6 packet of
	// Inner bytes without options, or 0. They are what an MSS option states, since
	// it leaves options out of account (RFC 6691). In transport mode the one of
	// the other family is 0.
	MSS4, MSS6 int
}

// Inner sums up what is left inside of packets of at most mtu bytes. The result
// is what Linux computes for an SA (net/xfrm/xfrm_state.c, xfrm_state_mtu); but
// for less than 1280 bytes, which IPv6 demands of any link, Linux fragments ESP
// instead where the outer packets are IPv6. Traffic flow confidentiality padding,
// IP compression and IP-TFS are not counted.
func (s Suite) Inner(mtu int, o Outer) Sum {
	sum := Sum{MTU: mtu, OuterIP: ipv4Header, Header: spiAndSeq, IV: s.IV, ICV: s.ICV, Align: s.align(), Trailer: trailer}
	if o.V6 {
		sum.OuterIP = ipv6Header
	}
	if o.NATT {
		sum.UDP = udpHeader
	}
	room := mtu - sum.OuterIP - sum.UDP - sum.Header - sum.IV - sum.ICV
	room = room/sum.Align*sum.Align - sum.Trailer
	if room < 0 {
		return sum
	}
	sum.Inner = room
	if o.Transport {
		sum.Inner += sum.OuterIP
	}
	if !o.Transport || !o.V6 {
		sum.MSS4 = max(sum.Inner-ipv4Header-tcpHeader, 0)
	}
	if !o.Transport || o.V6 {
		sum.MSS6 = max(sum.Inner-ipv6Header-tcpHeader, 0)
	}
	return sum
}

// Outer returns the size in bytes of the packet that carries one of size bytes
// in clear, with the least padding that is allowed. In transport mode size must
// cover at least the IP header.
func (s Suite) Outer(size int, o Outer) int {
	ip, udp := ipv4Header, 0
	if o.V6 {
		ip = ipv6Header
	}
	if o.NATT {
		udp = udpHeader
	}
	if o.Transport {
		size -= ip
	}
	align := s.align()
	encrypted := (size + trailer + align - 1) / align * align
	return ip + udp + spiAndSeq + s.IV + encrypted + s.ICV
}

// align returns what the encrypted part is padded to a multiple of: blocks are
// of 1, 4, 8 or 16 bytes.
func (s Suite) align() int { return max(s.Block, minAlign) }
