package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"sync"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/net/bpf"
)

// pcapgoLoop is what one writes first with gopacket: a loop around an
// EthernetHandle that decodes with preallocated layers. ESP is read by hand, as
// gopacket has no such layer for it.
func pcapgoLoop(ready func()) (c counted, err error) {
	prog, err := compile(filter)
	if err != nil {
		return c, err
	}
	handle, err := pcapgo.NewEthernetHandle("wan")
	if err != nil {
		return c, err
	}
	if err := handle.SetBPF(prog); err != nil {
		return c, err
	}
	if err := handle.SetCaptureLength(snapLen); err != nil {
		return c, err
	}
	var mu sync.Mutex // guards flows
	flows := map[flowKey]*sequence{}
	// The loop is not to be stopped but by the end of the process: nothing
	// wakes its system call.
	go func() {
		var eth layers.Ethernet
		var ip layers.IPv4
		var udp layers.UDP
		var payload gopacket.Payload
		parser := gopacket.NewDecodingLayerParser(layers.LayerTypeEthernet, &eth, &ip, &udp, &payload)
		parser.IgnoreUnsupported = true
		var decoded []gopacket.LayerType
		for {
			data, _, err := handle.ZeroCopyReadPacketData()
			if err != nil {
				return
			}
			parser.Truncated = false
			if err := parser.DecodeLayers(data, &decoded); err != nil || ip.Protocol != layers.IPProtocolESP || len(ip.Payload) < 8 {
				continue
			}
			src, _ := netip.AddrFromSlice(ip.SrcIP)
			dst, _ := netip.AddrFromSlice(ip.DstIP)
			k := flowKey{src, dst, binary.BigEndian.Uint32(ip.Payload)}
			mu.Lock()
			f := flows[k]
			if f == nil {
				f = &sequence{}
				flows[k] = f
			}
			f.add(binary.BigEndian.Uint32(ip.Payload[4:]))
			mu.Unlock()
		}
	}()
	ready()
	mu.Lock()
	defer mu.Unlock()
	for _, f := range flows {
		c.Packets += f.packets
		c.Expected += f.expected
	}
	c.Lost = c.Expected - min(c.Packets, c.Expected)
	stats, err := handle.Stats()
	if err != nil {
		return c, err
	}
	c.Drops = uint64(stats.Drops)
	return c, nil
}

type flowKey struct {
	src, dst netip.Addr
	spi      uint32
}

// sequence is the numbers of one flow, which come in order here.
type sequence struct {
	packets, expected uint64
	last              uint32
}

func (s *sequence) add(n uint32) {
	if s.packets++; s.packets == 1 {
		s.last = n - 1
	}
	s.expected += uint64(n - s.last)
	s.last = n
}

// compile has tcpdump compile a filter for Ethernet.
func compile(filter string) ([]bpf.RawInstruction, error) {
	out, err := exec.Command("tcpdump", "-y", "EN10MB", "-s", strconv.Itoa(snapLen), "-ddd", filter).Output()
	if err != nil {
		return nil, fmt.Errorf("compile the filter with tcpdump -ddd: %w", err)
	}
	r := bytes.NewReader(out)
	var n int
	if _, err := fmt.Fscanln(r, &n); err != nil || n < 1 || n > 4096 {
		return nil, fmt.Errorf("compile the filter with tcpdump -ddd: %q", out)
	}
	prog := make([]bpf.RawInstruction, n)
	for i := range prog {
		p := &prog[i]
		if _, err := fmt.Fscanln(r, &p.Op, &p.Jt, &p.Jf, &p.K); err != nil {
			return nil, fmt.Errorf("compile the filter with tcpdump -ddd: instruction %d: %w", i, err)
		}
	}
	return prog, nil
}
