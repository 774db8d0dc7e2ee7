package hoststate

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"golang.org/x/sys/unix"

	"vpnprobe/evidence"
)

// option reads or writes a TCP option.
func (r *nftRule) option(e nftExpression) {
	const maximumSegmentSize = 2 // the offset and the length of the value in the option
	if e.number(unix.NFTA_EXTHDR_OP) != unix.NFT_EXTHDR_OP_TCPOPT || !bytes.Equal(e.raw(unix.NFTA_EXTHDR_TYPE), []byte{tcpOptionMSS}) ||
		e.number(unix.NFTA_EXTHDR_OFFSET) != maximumSegmentSize || e.number(unix.NFTA_EXTHDR_LEN) != maximumSegmentSize {
		r.load(e.number(unix.NFTA_EXTHDR_DREG), nftValue{})
		if !e.has(unix.NFTA_EXTHDR_DREG) {
			r.say("<exthdr>")
		}
		return
	}
	if !e.has(unix.NFTA_EXTHDR_SREG) {
		r.load(e.number(unix.NFTA_EXTHDR_DREG), nftValue{from: fromMSS})
		return
	}
	switch v := r.registers[e.number(unix.NFTA_EXTHDR_SREG)]; {
	case v.from == fromNothing && len(v.data) >= 2:
		r.clamp("", int(binary.BigEndian.Uint16(v.data)))
	case v.from == fromRoute:
		r.clamp("", 0)
	default: // of a map, for instance
		r.meets = r.meets.and(perhaps())
		r.clamp("tcp option maxseg size set <other>", 0)
	}
}

// clamp notes that the rule sets the MSS, or has it follow the route's MTU.
func (r *nftRule) clamp(text string, mss int) {
	if text == "" {
		text = "tcp option maxseg size set rt mtu"
		if mss > 0 {
			text = "tcp option maxseg size set " + strconv.Itoa(mss)
		}
	}
	if mss > 0 {
		r.mss = evidence.Some(mss)
	}
	r.clamps, r.meetsAtClamp = true, r.meets
	r.say(text)
}

// target reads a target of iptables. That of TCPMSS is a struct xt_tcpmss_info
// (linux/netfilter/xt_TCPMSS.h): the MSS, all ones to follow the route's MTU.
func (r *nftRule) target(name string, info []byte) {
	if name != "TCPMSS" || len(info) < 2 {
		r.say("-j " + name)
		return
	}
	r.foreign = true
	if mss := int(binary.NativeEndian.Uint16(info)); mss != 0xffff {
		r.clamp("-j TCPMSS --set-mss "+strconv.Itoa(mss), mss)
	} else {
		r.clamp("-j TCPMSS --clamp-mss-to-pmtu", 0)
	}
}

// immediate loads a constant, or decides.
func (r *nftRule) immediate(e nftExpression) {
	for kind, value := range attributes(e.raw(unix.NFTA_IMMEDIATE_DATA)) {
		switch kind {
		case unix.NFTA_DATA_VALUE:
			r.load(e.number(unix.NFTA_IMMEDIATE_DREG), nftValue{from: fromNothing, data: value})
		case unix.NFTA_DATA_VERDICT:
			code, chain := int32(0), ""
			for kind, value := range attributes(value) {
				switch kind {
				case unix.NFTA_VERDICT_CODE:
					code = int32(bigEndian32(value))
				case unix.NFTA_VERDICT_CHAIN:
					chain = cString(value)
				}
			}
			r.decide(code, chain)
		}
	}
}

func (r *nftRule) decide(code int32, chain string) {
	switch code {
	case unix.NFT_JUMP:
		r.verdict = verdict{chain: chain}
	case unix.NFT_GOTO:
		r.verdict = verdict{chain: chain, ends: true}
	case unix.NFT_CONTINUE:
	default: // accept, drop, queue, return
		r.verdict = verdict{ends: true}
	}
}
