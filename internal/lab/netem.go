//go:build linux

package lab

import (
	"encoding/json"
	"strings"
)

// Impairment is what [Node.ImpairESP] does to ESP, and its own count of it.
type Impairment struct {
	*Fault
	node *Node
	dev  string
}

// Impaired is what netem did to the packets that it was given.
type Impaired struct {
	Dropped   int
	Passed    int // duplicates included
	Reordered int // sent at once while others wait, which they overtake
}

// netemHandle names the queue that only ESP passes.
const netemHandle = "40:"

// ImpairESP makes the ESP packets that the node sends through a device suffer
// as tc-netem(8) says, and no others, so that its counts are of them alone.
// IPv4 only.
func (n *Node) ImpairESP(dev, spec string) *Impairment {
	n.lab.t.Helper()
	// Band 4, which no priority leads to, is for ESP.
	n.Run("tc qdisc replace dev " + dev + " root handle 1: prio bands 4 priomap" + strings.Repeat(" 0", 16))
	n.Run("tc qdisc add dev " + dev + " parent 1:4 handle " + netemHandle + " netem limit 10000 " + spec)
	n.Run("tc filter add dev " + dev + " parent 1: protocol ip prio 1 u32 match ip protocol 50 0xff flowid 1:4")
	return &Impairment{Fault: n.fault(func() { n.Run("tc qdisc del dev " + dev + " root") }), node: n, dev: dev}
}

// Counts returns what was done so far. Ask before the fault is healed.
func (i *Impairment) Counts() Impaired {
	t := i.node.lab.t
	t.Helper()
	var queues []struct {
		Handle                   string
		Packets, Drops, Requeues int
	}
	list := i.node.Run("tc -s -j qdisc show dev " + i.dev)
	if err := json.Unmarshal([]byte(list), &queues); err != nil {
		t.Fatalf("lab: tc printed %q: %v", list, err)
	}
	for _, q := range queues {
		if q.Handle == netemHandle {
			return Impaired{Dropped: q.Drops, Passed: q.Packets, Reordered: q.Requeues}
		}
	}
	t.Fatalf("lab: no netem at %s of %s: %s", i.dev, i.node.Name, list)
	return Impaired{}
}
