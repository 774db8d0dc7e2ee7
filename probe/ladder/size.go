package ladder

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"vpnprobe/evidence"
	"vpnprobe/internal/wire/ike"
	"vpnprobe/probe"
)

// The sizes that are compared, in bytes of the IP packet: what any path
// carries whole, and what none does. It is the sending kernel that fragments
// the latter.
const (
	smallPacket = 600
	largePacket = 2000

	samples = 5
)

// shortest is the least time to wait for an answer, whatever others took.
const shortest = 400 * time.Millisecond

// compareSizes asks both ports for small and large requests of one kind, the
// large ones only where small ones are answered.
func (r *run) compareSizes(ctx context.Context) {
	if !r.answered {
		return
	}
	for _, port := range []uint16{portIKE, portNATT} {
		if !r.mayAsk(ctx, evidence.StepLarge) {
			return
		}
		c := comparison{run: r, LargeIKE: evidence.LargeIKE{Port: port, SmallBytes: smallPacket, LargeBytes: largePacket}}
		ok := c.take(ctx)
		if c.SmallSent > 0 {
			r.out.Large = append(r.out.Large, c.LargeIKE)
		}
		if !ok {
			r.mayAsk(ctx, evidence.StepLarge) // says why
			return
		}
	}
}

// comparison is one port's.
type comparison struct {
	*run
	evidence.LargeIKE
}

// take returns false when ctx ended, or the peer is out of room. After the
// first, sizes come in random order, so that a limit on the rate of answers
// does not hit the large ones alone.
func (c *comparison) take(ctx context.Context) bool {
	kind, ok := c.kind(ctx)
	if !ok || c.SmallAnswered == 0 {
		return ok
	}
	sizes := append(slices.Repeat([]int{smallPacket}, samples-1), slices.Repeat([]int{largePacket}, samples)...)
	rand.Shuffle(len(sizes), func(i, j int) { sizes[i], sizes[j] = sizes[j], sizes[i] })
	for _, size := range sizes {
		if !c.sample(ctx, kind, size) {
			return false
		}
		if c.LargeAnswered > 0 || c.SmallSent-c.SmallAnswered > 1 {
			break // large ones pass, or all kinds are lost
		}
	}
	return true
}

// kind returns a kind of request that is answered on the port, after one small
// request of it. It returns the last kind when none is.
func (c *comparison) kind(ctx context.Context) (evidence.IKERequest, bool) {
	kinds := []evidence.IKERequest{evidence.VersionProbe}
	if c.out.V2.Answers == evidence.Yes {
		kinds = append(kinds, evidence.ProposalProbe)
	} else if c.out.Main.Answers == evidence.Yes {
		kinds = append(kinds, evidence.ProposalProbeV1)
	}
	for _, kind := range kinds {
		c.SmallSent = 0
		if !c.sample(ctx, kind, smallPacket) {
			return kind, false
		}
		if c.SmallAnswered > 0 {
			return kind, true
		}
	}
	return kinds[len(kinds)-1], true
}

// sample sends one request in a packet of a size.
func (c *comparison) sample(ctx context.Context, kind evidence.IKERequest, size int) bool {
	const udp, v4, v6, marker = 8, 20, 40, 4
	headers := v4 + udp
	if c.cfg.Target.Is6() {
		headers = v6 + udp
	}
	if c.Port == portNATT {
		headers += marker
	}
	// Several large ones may have to be waited for in vain.
	wait := c.cfg.Timeout / 2
	if c.rtt > 0 {
		wait = min(wait, max(4*c.rtt, shortest))
	}
	ex, raw, err := c.paced(ctx, c.Port, probe.NewIKERequest(kind, size-headers), wait)
	if err != nil {
		return false
	}
	c.next = time.Now().Add(gap) // the same after an answer and after none
	answered := 0
	if ex.Outcome == evidence.IKEAnswered {
		answered = 1
	}
	if size == largePacket {
		c.LargeSent += ex.Requests
		c.LargeAnswered += answered
	} else {
		c.SmallSent += ex.Requests
		c.SmallAnswered += answered
	}
	if m, err := ike.Parse(raw); err == nil && m.FirstNotify() == ike.Cookie.String() {
		c.out.Cookie, c.halted = true, evidence.SkipCookie
		return false
	}
	return true
}
