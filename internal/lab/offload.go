//go:build linux

package lab

import "os/exec"

// OffloadESP makes gateway a's kernel decrypt ESP where it joins the segments
// that a network card received (esp4_offload with GRO), out of sight of packet
// sockets and of tc. It stays so for all nodes, whose devices do not join
// segments by themselves.
func (l *Lab) OffloadESP() {
	l.t.Helper()
	if out, err := exec.Command("modprobe", "-a", "esp4_offload", "esp6_offload").CombinedOutput(); err != nil {
		l.t.Fatalf("lab: load the ESP offload: %v: %s", err, out)
	}
	l.A.Run("ethtool -K wan gro on")
	// A veth whose peer sends large segments takes them as they are.
	l.uplink().Run("ethtool -K " + l.uplinkDevice() + " tso off")
}

// uplink returns the router next to gateway a, and uplinkDevice its device
// that leads there.
func (l *Lab) uplink() *Node {
	if l.NAT != nil {
		return l.NAT
	}
	return l.ISP
}

func (l *Lab) uplinkDevice() string { return pick(l.NAT != nil, "lan", "to-a") }
