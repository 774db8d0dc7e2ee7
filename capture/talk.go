package capture

import (
	"encoding/binary"
	"time"

	"vpnprobe/capture/ikeconv"
)

// hear hands an IKE message to the conversation with the peer. Messages by
// this side's other ports are an agent's probes, not the daemon's words.
func (p *peer) hear(pkt *packet, ours bool, t time.Time) {
	local, remote := binary.BigEndian.Uint16(pkt.payload[2:]), binary.BigEndian.Uint16(pkt.payload)
	if ours {
		local, remote = remote, local
	}
	if !ikePort(local) {
		return
	}
	data := pkt.payload[8:]
	size := int(binary.BigEndian.Uint16(pkt.payload[4:])) - 8
	if size < len(data) && size >= 4+ikeHeader {
		data = data[:size]
	}
	m := ikeconv.Message{
		Time:       t,
		Ours:       ours,
		LocalPort:  local,
		RemotePort: remote,
		NATT:       pkt.nonESP(),
		Data:       data,
		Size:       max(size, len(data)), // 0 before segmentation offload
		Fragment:   pkt.fragment(),
	}
	if m.NATT {
		m.Data, m.Size = m.Data[4:], m.Size-4
	}
	p.talk.Add(m)
	if t.After(p.talked) {
		p.talked = t
	}
}
