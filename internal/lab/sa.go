//go:build linux

package lab

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// SA is a security association as a node's kernel holds it, with its counters.
type SA struct {
	Source, Destination string
	SPI                 string // as ip writes it
	Encap               bool   // ESP in UDP

	// Sequence is the highest number received or, at the sender, sent.
	Sequence uint32
	Packets  int // received and authentic, or sent
	// Replayed counts packets with a number that was there already, Late
	// those with one below the window, that may have been there.
	Replayed, Late int

	text string // of ip
}

var (
	saBegin    = regexp.MustCompile(`(?m)^src (\S+) dst (\S+)\n\s+proto esp spi (0x[0-9a-f]+)`)
	saSequence = regexp.MustCompile(`(?s)anti-replay(?: esn)? context:.*?[ \t]seq 0x([0-9a-f]+), oseq 0x([0-9a-f]+)|(?s)anti-replay esn context:.*?[ \t]seq 0x([0-9a-f]+).*?[ \t]oseq 0x([0-9a-f]+)`)
	saPackets  = regexp.MustCompile(`lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)`)
	saReplayed = regexp.MustCompile(`stats:\s+replay-window (\d+) replay (\d+)`)
)

// SAs returns the security associations of ESP that the node's kernel holds,
// with their counters now. Negotiations under way are left out.
func (n *Node) SAs() []SA {
	n.lab.t.Helper()
	sas, err := parseSAs(n.Run("ip -s xfrm state list"))
	if err != nil {
		n.lab.t.Fatalf("lab: %s: %v", n.Name, err)
	}
	return sas
}

// parseSAs reads what ip -s xfrm state says.
func parseSAs(list string) ([]SA, error) {
	var sas []SA
	begins := saBegin.FindAllStringSubmatchIndex(list, -1)
	for i, at := range begins {
		end := len(list)
		if i+1 < len(begins) {
			end = begins[i+1][0]
		}
		text := list[at[0]:end]
		sa := SA{
			Source: list[at[2]:at[3]], Destination: list[at[4]:at[5]], SPI: list[at[6]:at[7]],
			Encap: strings.Contains(text, "encap type espinudp"), text: text,
		}
		if sa.SPI == "0x00000000" {
			continue
		}
		sequence, packets, replayed := saSequence.FindStringSubmatch(text), saPackets.FindStringSubmatch(text), saReplayed.FindStringSubmatch(text)
		if sequence == nil || packets == nil || replayed == nil {
			return nil, fmt.Errorf("no counters in the association:\n%s", text)
		}
		for _, hex := range sequence[1:] {
			if number, _ := strconv.ParseUint(hex, 16, 32); number > 0 {
				sa.Sequence = uint32(number)
			}
		}
		sa.Packets, _ = strconv.Atoi(packets[1])
		sa.Late, _ = strconv.Atoi(replayed[1])
		sa.Replayed, _ = strconv.Atoi(replayed[2])
		sas = append(sas, sa)
	}
	return sas, nil
}

// Inbound returns the association of the newest tunnel by which the gateway
// receives, with its counters now.
func (g *Gateway) Inbound() SA { return g.sa(func(sa SA) bool { return sa.Destination == g.Address }) }

// Outbound returns the association of the newest tunnel by which the gateway
// sends, with its counters now.
func (g *Gateway) Outbound() SA { return g.sa(func(sa SA) bool { return sa.Source == g.Address }) }

func (g *Gateway) sa(is func(SA) bool) SA {
	g.lab.t.Helper()
	for _, sa := range g.SAs() { // the kernel lists the newest first
		if is(sa) {
			return sa
		}
	}
	g.lab.t.Fatalf("lab: gateway %s has no such association", g.Name)
	return SA{}
}

var (
	saReqID  = regexp.MustCompile(`reqid (\d+)`)
	saAuth   = regexp.MustCompile(`auth-trunc (\S+) (0x[0-9a-f]+)(?: \(\d+ bits\))? (\d+)`)
	saCipher = regexp.MustCompile(`enc (\S+) (0x[0-9a-f]+)`)
)

// SwapEncap makes the gateway send ESP in UDP if it was sending it raw, and
// raw if it was sending it in UDP, with the same keys and the next sequence
// number. The other gateway goes on as agreed.
func (g *Gateway) SwapEncap() *Fault {
	g.lab.t.Helper()
	g.swapEncap()
	return g.fault(func() { g.swapEncap() })
}

func (g *Gateway) swapEncap() {
	g.lab.t.Helper()
	sa := g.Outbound()
	reqID, auth, cipher := saReqID.FindStringSubmatch(sa.text), saAuth.FindStringSubmatch(sa.text), saCipher.FindStringSubmatch(sa.text)
	if reqID == nil || auth == nil || cipher == nil {
		g.lab.t.Fatalf("lab: cannot read the association:\n%s", sa.text)
	}
	encap := " encap espinudp 4500 4500 0.0.0.0"
	if sa.Encap {
		encap = ""
	}
	id := fmt.Sprintf("src %s dst %s proto esp spi %s", sa.Source, sa.Destination, sa.SPI)
	g.Run("ip xfrm state delete " + id)
	g.Run(fmt.Sprintf("ip xfrm state add %s reqid %s mode tunnel replay-oseq %d flag af-unspec auth-trunc %s %s %s enc %s %s%s",
		id, reqID[1], sa.Sequence, auth[1], auth[2], auth[3], cipher[1], cipher[2], encap))
}
