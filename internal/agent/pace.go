package agent

import (
	"hash/fnv"
	"time"

	"vpnprobe/config"
)

// pace is how often a peer is looked at, and how far back a snapshot reaches.
type pace struct {
	once      bool          // an on-demand run
	echo      time.Duration // between pings of the gateway and the references
	inner     time.Duration // between pings of an inner address; 0: none
	timeout   time.Duration // of a ping
	beat      time.Duration // between IKE heartbeats on one port
	hop       time.Duration // between inner hop probes while inner hosts answer
	tcp       time.Duration // between TCP connections to one inner port
	mtu       time.Duration // between searches of a path MTU, and looks at segments
	ladder    time.Duration // between runs of the probe ladder while something is wrong; 0: once, at the start
	resolve   time.Duration // between look-ups of a gateway's name
	poll      time.Duration // between readings of the host's state
	window    time.Duration // of pings and heartbeats in a snapshot
	tunnelWin time.Duration // of traffic counts in a snapshot
}

// beatTimeout bounds the wait for each datagram of a heartbeat. A heartbeat
// that stays silent sends several, so a second keeps two silent ones within
// two default intervals.
const beatTimeout = time.Second

// daemonPace is the pace of one peer in the daemon.
//
// The window of two minutes holds enough pings at one per second to tell 10 %
// loss from 2 %; that of the traffic counts is short, because an ended fault
// must be seen to have ended within two intervals.
func daemonPace(c *config.Config, p config.Peer) pace {
	return pace{
		echo: p.ICMP.Interval, timeout: p.ICMP.Timeout, inner: c.InnerInterval,
		beat: c.Interval, hop: time.Minute, tcp: max(c.InnerInterval, 5*time.Second),
		mtu: c.PathMTUInterval, ladder: 10 * time.Minute, resolve: time.Minute, poll: time.Second,
		window: 2 * time.Minute, tunnelWin: 12 * time.Second,
	}
}

// oncePace is the pace of an on-demand run: 20 pings a second, so that ten
// seconds tell 10 % loss from 2 %, and everything else as often as a gateway
// can be asked without being a burden.
func oncePace(d time.Duration) pace {
	return pace{
		once: true,
		echo: 50 * time.Millisecond, timeout: 2 * time.Second, inner: 250 * time.Millisecond,
		beat: time.Second, hop: time.Second, tcp: 2 * time.Second,
		mtu: time.Hour, resolve: time.Hour, poll: 250 * time.Millisecond,
		window: d + time.Minute, tunnelWin: d + time.Minute,
	}
}

// phase spreads tasks of one interval evenly and the same way at every start.
func phase(interval time.Duration, name string) time.Duration {
	if interval <= 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(name))
	return time.Duration(h.Sum64() % uint64(interval))
}
