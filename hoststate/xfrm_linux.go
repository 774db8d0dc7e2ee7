package hoststate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// Tunnel reads the kernel's SAs with the peer's gateway addresses, in both
// directions, and whether an outbound policy sends anything there. A valid
// local keeps to the SAs and policies of this local address; an invalid one
// takes all. The traffic over time is left for the caller to fill in.
//
// Without CAP_NET_ADMIN, Readable is Unknown; on a kernel without IPsec it is
// No, and there can be no SAs: not even those of an IKE daemon that encrypts
// in user space, which nothing here can see.
func (*Reader) Tunnel(gateway []netip.Addr, local netip.Addr) evidence.Tunnel {
	e := endpoints{local: local.Unmap()}
	for _, g := range gateway {
		if g.IsValid() {
			e.gateway = append(e.gateway, g.Unmap().WithZone(""))
		}
	}
	if len(e.gateway) == 0 {
		return evidence.Tunnel{CannotLook: "read the kernel's IPsec state: the peer's gateway address is not known"}
	}
	sas, err := readSAs(e)
	if err != nil {
		return unreadable(err)
	}
	policy, err := readPolicy(e)
	if err != nil {
		return unreadable(err)
	}
	return evidence.Tunnel{Readable: evidence.Yes, SAs: sas, Policy: policy}
}

func unreadable(err error) evidence.Tunnel {
	switch {
	case errors.Is(err, unix.EPROTONOSUPPORT):
		return evidence.Tunnel{Readable: evidence.No, CannotLook: "read the kernel's IPsec state: this kernel has none (no xfrm_user: modprobe xfrm_user)"}
	case errors.Is(err, unix.EPERM):
		return evidence.Tunnel{CannotLook: "read the kernel's IPsec state: needs CAP_NET_ADMIN: sudo setcap cap_net_admin,cap_net_raw+ep agent"}
	}
	return evidence.Tunnel{CannotLook: fmt.Sprintf("read the kernel's IPsec state: %v", err)}
}

// endpoints are the two ends whose SAs and policies are wanted.
type endpoints struct {
	gateway []netip.Addr
	local   netip.Addr // invalid: any
}

func (e endpoints) isGateway(a netip.Addr) bool { return slices.Contains(e.gateway, a) }

func (e endpoints) isLocal(a netip.Addr) bool { return !e.local.IsValid() || a == e.local }

// readSAs has the kernel pick the SAs of each gateway address (an address
// filter, Linux 3.15 and later), since a hub has thousands of others.
func readSAs(e endpoints) ([]evidence.SA, error) {
	sas := []evidence.SA{}
	for _, g := range e.gateway {
		for _, inbound := range []bool{false, true} {
			err := query(unix.NETLINK_XFRM, msgGetSA, unix.NLM_F_DUMP, addressFilter(g, inbound), func(b []byte) bool {
				sa, ok := parseSA(b)
				remote, local := sa.dst, sa.src
				if inbound {
					remote, local = sa.src, sa.dst
				}
				if ok && remote == g && e.isLocal(local) {
					sa.Inbound = inbound
					sas = append(sas, sa.SA)
				}
				return true
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return sas, nil
}

// readPolicy looks for one outbound policy towards the gateway; there is no
// filter for that in the kernel.
func readPolicy(e endpoints) (evidence.Fact, error) {
	policy := evidence.No
	err := query(unix.NETLINK_XFRM, msgGetPolicy, unix.NLM_F_DUMP, nil, func(b []byte) bool {
		if policyTowards(b, e) {
			policy = evidence.Yes
		}
		return policy == evidence.No
	})
	if err != nil {
		return evidence.Unknown, err
	}
	return policy, nil
}

// Numbers of linux/xfrm.h and linux/ipsec.h that x/sys/unix does not have.
const (
	msgGetSA     = 0x12 // XFRM_MSG_GETSA
	msgGetPolicy = 0x15 // XFRM_MSG_GETPOLICY

	attrAlgAuth       = 1  // XFRMA_ALG_AUTH: a key
	attrAlgCrypt      = 2  // XFRMA_ALG_CRYPT: a key
	attrAlgAEAD       = 18 // XFRMA_ALG_AEAD: a key
	attrAlgAuthTrunc  = 20 // XFRMA_ALG_AUTH_TRUNC: a key
	attrEncap         = 4  // XFRMA_ENCAP
	attrTemplates     = 5  // XFRMA_TMPL
	attrLastUsed      = 15 // XFRMA_LASTUSED
	attrAddressFilter = 26 // XFRMA_ADDRESS_FILTER
	attrOffload       = 28 // XFRMA_OFFLOAD_DEV: struct xfrm_user_offload

	offloadPacket = 4 // XFRM_OFFLOAD_PACKET

	modeTransport = 0 // XFRM_MODE_TRANSPORT
	modeTunnel    = 1 // XFRM_MODE_TUNNEL
	modeBEET      = 4 // XFRM_MODE_BEET

	encapNonIKE = 1 // UDP_ENCAP_ESPINUDP_NON_IKE of linux/udp.h
	encapESP    = 2 // UDP_ENCAP_ESPINUDP

	policyOut = 1 // XFRM_POLICY_OUT
)

// Sizes in bytes of the structs of linux/xfrm.h.
const (
	sizeofAddressFilter = 36
	sizeofTemplate      = 64 // struct xfrm_user_tmpl
)

// The structs below end in padding to the alignment of a 64-bit integer, which
// is 4 bytes on 386 and 8 elsewhere; their fields lie where they lie.
var (
	sizeofSA     = padded(217) // struct xfrm_usersa_info
	sizeofPolicy = padded(164) // struct xfrm_userpolicy_info
)

func padded(n int) int {
	if runtime.GOARCH == "386" {
		return align(n)
	}
	return (n + 7) &^ 7
}

// addressFilter builds the only attribute of a dump request, struct
// xfrm_address_filter: such a request has no fixed part (net/xfrm/xfrm_user.c,
// xfrm_dump_sa).
func addressFilter(gateway netip.Addr, inbound bool) []byte {
	var f [sizeofAddressFilter]byte
	address, length := 16, 35 // daddr, dplen
	if inbound {
		address, length = 0, 34 // saddr, splen
	}
	copy(f[address:], gateway.AsSlice())
	binary.NativeEndian.PutUint16(f[32:], uint16(family(gateway)))
	f[length] = uint8(gateway.BitLen())
	return appendAttribute(nil, attrAddressFilter, f[:])
}

type securityAssociation struct {
	evidence.SA
	src, dst netip.Addr
}

// parseSA reads a struct xfrm_usersa_info and its attributes. It reports false
// for what protects no traffic: a message that is too short, another protocol
// (IPComp stands beside ESP and would count the same packets again), or the
// kernel's placeholder for an SA under negotiation, which has no algorithm.
func parseSA(b []byte) (sa securityAssociation, ok bool) {
	if len(b) < sizeofSA {
		return sa, false
	}
	switch b[76] { // id.proto
	case unix.IPPROTO_ESP:
		sa.Protocol = "esp"
	case unix.IPPROTO_AH:
		sa.Protocol = "ah"
	default:
		return sa, false
	}
	outer := binary.NativeEndian.Uint16(b[212:])
	sa.dst = xfrmAddress(b[56:], outer)
	sa.src = xfrmAddress(b[80:], outer)
	sa.SPI = binary.BigEndian.Uint32(b[72:])
	sa.Mode = modeName(b[214])
	sa.Bytes = binary.NativeEndian.Uint64(b[160:]) // curlft
	sa.Packets = binary.NativeEndian.Uint64(b[168:])
	sa.Created = unixTime(binary.NativeEndian.Uint64(b[176:]))

	keyed := false
	var algs algorithms
	for kind, value := range attributes(b[sizeofSA:]) {
		switch kind {
		case attrAlgAuth, attrAlgCrypt, attrAlgAEAD, attrAlgAuthTrunc:
			keyed = true
			algs.read(kind, value)
		case attrEncap: // struct xfrm_encap_tmpl
			if len(value) >= 2 {
				e := binary.NativeEndian.Uint16(value)
				sa.Encap = e == encapNonIKE || e == encapESP
			}
		case attrOffload: // an interface index, then flags
			sa.Offloaded = len(value) > 4 && value[4]&offloadPacket != 0
		case attrLastUsed:
			// curlft.use_time is when the SA was first used. Linux 6.1 does
			// not keep this for outbound SAs: the counters always tell.
			if len(value) == 8 {
				sa.Used = evidence.Some(unixTime(binary.NativeEndian.Uint64(value)))
			}
		}
	}
	sa.Suite = algs.suite(sa.Protocol)
	return sa, keyed && sa.SPI != 0
}

// policyTowards reads a struct xfrm_userpolicy_info and its templates and
// reports whether it sends traffic into an SA with the gateway. A template in
// transport mode may leave the addresses to the packet; then the selector
// says whom the policy is for.
func policyTowards(b []byte, e endpoints) bool {
	if len(b) < sizeofPolicy || b[160] != policyOut {
		return false
	}
	for kind, value := range attributes(b[sizeofPolicy:]) {
		if kind != attrTemplates {
			continue
		}
		for ; len(value) >= sizeofTemplate; value = value[sizeofTemplate:] {
			outer := binary.NativeEndian.Uint16(value[24:])
			dst, src := xfrmAddress(value, outer), xfrmAddress(value[28:], outer)
			if dst.IsUnspecified() && value[48] == modeTransport {
				dst, src = selectorHosts(b)
			}
			if e.isGateway(dst) && (e.isLocal(src) || src.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}

// selectorHosts returns the destination and the source of a struct
// xfrm_selector that selects one destination; a wider one returns none.
func selectorHosts(b []byte) (dst, src netip.Addr) {
	outer := binary.NativeEndian.Uint16(b[40:])
	dst, src = xfrmAddress(b, outer), xfrmAddress(b[16:], outer)
	if int(b[42]) != dst.BitLen() { // prefixlen_d
		return netip.Addr{}, netip.Addr{}
	}
	return dst, src
}

// xfrmAddress reads the first four or the sixteen bytes of an xfrm_address_t;
// b holds all sixteen.
func xfrmAddress(b []byte, family uint16) netip.Addr {
	switch family {
	case unix.AF_INET:
		return netip.AddrFrom4([4]byte(b))
	case unix.AF_INET6:
		return netip.AddrFrom16([16]byte(b))
	}
	return netip.Addr{}
}

func modeName(mode uint8) string {
	switch mode {
	case modeTransport:
		return "transport"
	case modeTunnel:
		return "tunnel"
	case modeBEET:
		return "beet"
	}
	return "other"
}

// unixTime keeps a hostile number within the years that JSON can write.
func unixTime(seconds uint64) time.Time {
	const year9999 = 253402300799
	return time.Unix(int64(min(seconds, year9999)), 0).UTC()
}
