package diagnosis

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vpnprobe/evidence"
)

var (
	now       = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)
	gateway   = netip.MustParseAddr("198.51.100.2")
	source    = netip.MustParseAddr("203.0.113.2")
	isp       = netip.MustParseAddr("203.0.113.1")
	reference = netip.MustParseAddr("192.0.2.53")
	inner     = netip.MustParseAddr("10.2.0.10")
)

// series builds the results of n pings, of which lost says which were lost,
// through the same summary that the agent uses.
func series(role evidence.Role, target netip.Addr, n int, rtt time.Duration, lost func(i int) bool) evidence.EchoSeries {
	var list []evidence.EchoResult
	for i := range n {
		r := evidence.EchoResult{Target: target, Role: role, Sent: now.Add(time.Duration(i-n) * time.Second), Outcome: evidence.EchoReply, RTT: rtt}
		if lost(i) {
			r.Outcome, r.RTT = evidence.EchoLost, 0
		}
		list = append(list, r)
	}
	return evidence.SummarizeEcho(list, time.Time{})
}

func never(int) bool  { return false }
func always(int) bool { return true }
func every(k int) func(int) bool {
	return func(i int) bool { return i%k == 0 }
}

func beats(port uint16, outcomes ...evidence.IKEOutcome) evidence.IKEPort {
	p := evidence.IKEPort{Port: port}
	for i, o := range outcomes {
		r := evidence.IKEResult{Port: port, Sent: now.Add(time.Duration(i-len(outcomes)) * time.Second), Request: evidence.VersionProbe, Requests: 1, Outcome: o}
		switch o {
		case evidence.IKEAnswered:
			r.Notify = "INVALID_MAJOR_VERSION"
		case evidence.IKESilent:
			r.Requests = 3
		case evidence.IKERefused:
			r.ICMP = &evidence.ICMPError{Reason: evidence.PortUnreachable, Type: 3, Code: 3, Offender: evidence.Some(gateway)}
		case evidence.IKEProhibited:
			r.ICMP = &evidence.ICMPError{Reason: evidence.AdminProhibited, Type: 3, Code: 13, Offender: evidence.Some(isp)}
		case evidence.IKEUnreachable:
			r.ICMP = &evidence.ICMPError{Reason: evidence.HostUnreachable, Type: 3, Code: 1, Offender: evidence.Some(isp)}
		}
		p.Results = append(p.Results, r)
	}
	return p
}

const (
	answered = evidence.IKEAnswered
	silent   = evidence.IKESilent
)

// healthy is a peer at which everything works, as seen from its tunnel's end.
func healthy() *evidence.Snapshot {
	return &evidence.Snapshot{
		Peer: "cloud", Time: now, Window: evidence.Seconds(10 * time.Second),
		Declared: evidence.Declared{
			Gateway: gateway.String(), References: []netip.Addr{reference}, Inner: []netip.Addr{inner},
			MaxLoss: 0.02, MaxRTT: evidence.Seconds(250 * time.Millisecond),
		},
		Addresses: []netip.Addr{gateway},
		Host: evidence.Host{
			Route:    evidence.Route{Kind: evidence.RouteUnicast, Interface: "wan", Source: evidence.Some(source), NextHop: evidence.Some(isp), Neighbour: evidence.Yes, Tunnel: evidence.No},
			Underlay: evidence.Link{Name: "wan", Exists: evidence.Yes, Up: evidence.Yes, Carrier: evidence.Yes},
			Tunnel: evidence.Tunnel{Readable: evidence.Yes, Policy: evidence.Yes, SAs: []evidence.SA{{SPI: 1, Inbound: true, Packets: 40}, {SPI: 2, Packets: 40}},
				In: evidence.Traffic{Packets: 40}, Out: evidence.Traffic{Packets: 40}, Over: evidence.Seconds(10 * time.Second)},
			Daemon: evidence.Yes,
		},
		Echoes: []evidence.EchoSeries{
			series(evidence.Gateway, gateway, 200, 20*time.Millisecond, never),
			series(evidence.Reference, reference, 200, 10*time.Millisecond, never),
			series(evidence.Inner, inner, 40, 21*time.Millisecond, never),
		},
		IKE: []evidence.IKEPort{beats(500, answered, answered, answered), beats(4500, answered, answered, answered)},
		Hop: evidence.InnerHop{Sent: 2, Answered: 1, Ever: evidence.Yes},
	}
}

func echo(s *evidence.Snapshot, role evidence.Role, lost func(int) bool) {
	for i := range s.Echoes {
		if e := &s.Echoes[i]; e.Role == role {
			*e = series(role, e.Target, e.Sent, 20*time.Millisecond, lost)
		}
	}
}

func ike(s *evidence.Snapshot, o500, o4500 evidence.IKEOutcome) {
	s.IKE = []evidence.IKEPort{beats(500, o500, o500, o500), beats(4500, o4500, o4500, o4500)}
}

// noTunnel is a tunnel that is wanted and not up.
func noTunnel(s *evidence.Snapshot) {
	s.Host.Tunnel = evidence.Tunnel{Readable: evidence.Yes, Policy: evidence.Yes}
	s.Hop = evidence.InnerHop{}
	echo(s, evidence.Inner, always)
}

// oneWay is a tunnel that is up, into which we send and from which nothing comes.
func oneWay(s *evidence.Snapshot) {
	t := &s.Host.Tunnel
	t.In = evidence.Traffic{}
	t.SAs[0].Packets = 0
	s.Hop = evidence.InnerHop{Sent: 10}
	echo(s, evidence.Inner, always)
}

// idle is a tunnel that is up and carries nothing, with no inner host declared.
func idle(s *evidence.Snapshot) {
	s.Host.Tunnel.In, s.Host.Tunnel.Out = evidence.Traffic{}, evidence.Traffic{}
	noInner(s)
}

func noInner(s *evidence.Snapshot) {
	s.Echoes, s.Declared.Inner, s.Hop = s.Echoes[:2], nil, evidence.InnerHop{}
}

// elsewhere is a host behind the gateway, which is not the tunnel's end.
func elsewhere(s *evidence.Snapshot) {
	s.Host.Tunnel = evidence.Tunnel{Readable: evidence.Yes, Policy: evidence.No}
	s.Host.Daemon, s.Hop = evidence.No, evidence.InnerHop{}
	s.Host.Route.Source = evidence.Some(netip.MustParseAddr("10.1.0.9"))
}

// evaluation is a change to a healthy peer, and what is to be said of it.
type evaluation struct {
	name   string
	change func(s *evidence.Snapshot)
	want   Label
	info   Label // an info finding beside the cause
}

func TestEvaluate(t *testing.T) {
	tests := []evaluation{
		{"healthy", func(*evidence.Snapshot) {}, OK, ""},
		{"nothing observed", func(s *evidence.Snapshot) { *s = evidence.Snapshot{Peer: "cloud"} }, Undecided, ""},
		{"one random loss is none", func(s *evidence.Snapshot) { echo(s, evidence.Gateway, every(200)) }, OK, ""},

		{"gateway ignores ping", func(s *evidence.Snapshot) { echo(s, evidence.Gateway, always) }, OK, "icmp_blocked"},
		{"inner host ignores ping, serves TCP", func(s *evidence.Snapshot) {
			echo(s, evidence.Inner, always)
			s.TCP = []evidence.TCPResult{{Target: netip.AddrPortFrom(inner, 443), Connected: evidence.Yes}}
		}, OK, "icmp_blocked"},
		{"idle tunnel, nothing inner declared", func(s *evidence.Snapshot) {
			noTunnel(s)
			s.Echoes = s.Echoes[:2]
		}, OK, ""},
		{"first inner pings lost to the trap", func(s *evidence.Snapshot) {
			echo(s, evidence.Inner, func(i int) bool { return i < 3 })
		}, OK, ""},
		{"4500 silent without NAT on a tunnel that works", func(s *evidence.Snapshot) { ike(s, answered, silent) }, OK, ""},
		{"IKE ignores our port, tunnel works", func(s *evidence.Snapshot) { ike(s, silent, silent) }, OK, "peer_firewall_drops_ike"},

		{"no route", func(s *evidence.Snapshot) {
			s.Host.Route = evidence.Route{Kind: evidence.RouteNone}
			noTunnel(s)
			ike(s, evidence.IKESendError, evidence.IKESendError)
			s.Echoes = nil
		}, "underlay_route_wrong", ""},
		{"route into a tunnel that works", func(s *evidence.Snapshot) { s.Host.Route.Tunnel = evidence.Yes }, OK, ""},
		{"route into a tunnel", func(s *evidence.Snapshot) {
			s.Host.Route.Tunnel = evidence.Yes
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			ike(s, silent, silent)
		}, "underlay_route_wrong", ""},

		{"everything silent", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			echo(s, evidence.Reference, always)
			ike(s, silent, silent)
		}, "internet_down", ""},
		{"interface down", func(s *evidence.Snapshot) {
			noTunnel(s)
			s.Host.Route = evidence.Route{Kind: evidence.RouteNone}
			s.Host.Underlay.Up = evidence.No
			s.Echoes = nil
			ike(s, evidence.IKESendError, evidence.IKESendError)
		}, "internet_down", ""},
		{"references ignore ping, peer works", func(s *evidence.Snapshot) { echo(s, evidence.Reference, always) }, OK, ""},

		{"peer dark", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			ike(s, silent, silent)
		}, "peer_unreachable", ""},
		{"peer dark, one silent heartbeat", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			s.IKE = []evidence.IKEPort{beats(500, silent), beats(4500, silent)}
		}, Undecided, ""},
		{"gateway fell silent, IKE not asked since", func(s *evidence.Snapshot) {
			noTunnel(s)
			noInner(s)
			echo(s, evidence.Gateway, func(i int) bool { return i >= 190 })
			for _, p := range s.IKE {
				for i := range p.Results {
					p.Results[i].Sent = now.Add(-time.Minute)
				}
			}
		}, Undecided, ""},
		{"gateway fell silent, IKE answered since", func(s *evidence.Snapshot) {
			noTunnel(s)
			noInner(s)
			echo(s, evidence.Gateway, func(i int) bool { return i >= 190 })
		}, OK, "icmp_blocked"},
		{"a hop says host unreachable", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			ike(s, evidence.IKEUnreachable, evidence.IKEUnreachable)
		}, "peer_unreachable", ""},

		{"port closed", func(s *evidence.Snapshot) {
			noTunnel(s)
			ike(s, evidence.IKERefused, evidence.IKERefused)
		}, "peer_ike_not_listening", ""},
		{"500 closed, 4500 answers", func(s *evidence.Snapshot) { ike(s, evidence.IKERefused, answered) }, OK, ""},

		{"IKE dropped", func(s *evidence.Snapshot) { noTunnel(s); ike(s, silent, silent) }, "peer_firewall_drops_ike", ""},
		{"IKEv1 declared, IKEv2 heartbeats silent", func(s *evidence.Snapshot) {
			noTunnel(s)
			ike(s, silent, silent)
			s.Declared.IKEVersion = 1
		}, Undecided, ""},
		{"IKE rejected by a hop", func(s *evidence.Snapshot) {
			noTunnel(s)
			ike(s, evidence.IKEProhibited, evidence.IKEProhibited)
		}, "peer_firewall_drops_ike", ""},
		{"IKE dropped under a living tunnel, answered before", func(s *evidence.Snapshot) {
			ike(s, silent, silent)
			s.IKE[0].Ever = evidence.Yes
		}, "peer_firewall_drops_ike", ""},

		{"4500 dropped behind NAT", func(s *evidence.Snapshot) {
			noTunnel(s)
			s.Host.Route.Source = evidence.Some(netip.MustParseAddr("192.168.100.2"))
			ike(s, answered, silent)
		}, "natt_blocked", ""},
		{"4500 dropped, public address", func(s *evidence.Snapshot) {
			noTunnel(s)
			ike(s, answered, silent)
		}, "tunnel_down", ""},

		{"ESP blocked", func(s *evidence.Snapshot) { oneWay(s) }, "esp_blocked", ""},
		{"one-way, but the capture saw ESP come in", func(s *evidence.Snapshot) {
			oneWay(s)
			s.Capture = evidence.Capture{Mode: evidence.CaptureRing, Blind: evidence.No, Over: 1, In: evidence.WireTraffic{ESP: evidence.Traffic{Packets: 9}, Sequence: evidence.Sequence{Expected: 9}}}
		}, "inner_unreachable", ""},
		{"one-way, nothing was sent", func(s *evidence.Snapshot) {
			oneWay(s)
			s.Host.Tunnel.Out = evidence.Traffic{Packets: 1}
			s.Echoes = s.Echoes[:2]
		}, OK, ""},

		{"remote host filtered", func(s *evidence.Snapshot) {
			echo(s, evidence.Inner, always)
			s.Host.Tunnel.In = evidence.Traffic{Packets: 4}
		}, "inner_unreachable", ""},
		{"remote host filtered, SAs unreadable", func(s *evidence.Snapshot) {
			s.Host.Tunnel = evidence.Tunnel{CannotLook: "needs CAP_NET_ADMIN"}
			echo(s, evidence.Inner, always)
		}, "inner_unreachable", ""},

		{"no SA though traffic asks for one", func(s *evidence.Snapshot) { noTunnel(s) }, "tunnel_down", ""},

		{"10 % loss everywhere", func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, every(10))
			echo(s, evidence.Reference, every(10))
		}, "underlay_loss", ""},
		{"15 % loss on the peer's side", func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, every(7))
			s.IKE[0].Results[0].Requests = 2
		}, "underlay_loss", ""},
		{"gateway polices ping, heartbeats all pass", func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, every(2))
			s.IKE = []evidence.IKEPort{beats(500, slices.Repeat([]evidence.IKEOutcome{answered}, 10)...), beats(4500, slices.Repeat([]evidence.IKEOutcome{answered}, 10)...)}
		}, OK, ""},
		{"an outage that has ended is not random loss", func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, func(i int) bool { return i > 100 && i < 150 })
		}, OK, ""},

		{"slow", func(s *evidence.Snapshot) {
			s.Echoes[0] = series(evidence.Gateway, gateway, 200, 300*time.Millisecond, never)
			s.Echoes[2] = series(evidence.Inner, inner, 40, 301*time.Millisecond, never)
		}, "underlay_latency", ""},
		{"slow at ping only", func(s *evidence.Snapshot) {
			s.Echoes[0] = series(evidence.Gateway, gateway, 200, 300*time.Millisecond, never)
		}, OK, ""},
		{"idle, IKE ignores our port", func(s *evidence.Snapshot) { idle(s); ike(s, silent, silent) }, Undecided, "peer_firewall_drops_ike"},
		{"idle, IKE and ping ignored", func(s *evidence.Snapshot) {
			idle(s)
			ike(s, silent, silent)
			echo(s, evidence.Gateway, always)
		}, Undecided, ""},
		{"works, a hop rejects our port", func(s *evidence.Snapshot) { ike(s, evidence.IKEProhibited, evidence.IKEProhibited) }, OK, "peer_firewall_drops_ike"},
		{"not the tunnel's end, 4500 silent", func(s *evidence.Snapshot) { elsewhere(s); noInner(s); ike(s, answered, silent) }, OK, ""},
		{"idle NAT-T tunnel, 4500 ignores us", func(s *evidence.Snapshot) {
			idle(s)
			for i := range s.Host.Tunnel.SAs {
				s.Host.Tunnel.SAs[i].Encap = true
			}
			ike(s, answered, silent)
		}, OK, ""},
		{"4500-only peer, idle trap", func(s *evidence.Snapshot) { noTunnel(s); noInner(s); ike(s, silent, answered) }, OK, ""},
		{"polices ping, 4500 silent", func(s *evidence.Snapshot) {
			echo(s, evidence.Gateway, every(2))
			s.IKE = []evidence.IKEPort{beats(500, slices.Repeat([]evidence.IKEOutcome{answered}, 24)...), beats(4500, silent, silent)}
		}, OK, ""},
		{"polices ping, inner lossless, IKE silent", func(s *evidence.Snapshot) { echo(s, evidence.Gateway, every(2)); ike(s, silent, silent) }, OK, ""},
		{"on-link peer dark, no references", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			ike(s, evidence.IKEUnreachable, evidence.IKEUnreachable)
			s.Echoes = slices.Delete(s.Echoes, 1, 2)
			s.Host.Route.NextHop, s.Host.Route.Neighbour = evidence.Opt[netip.Addr]{}, evidence.No
		}, "peer_unreachable", ""},
		{"declared link down, route elsewhere", func(s *evidence.Snapshot) {
			noTunnel(s)
			echo(s, evidence.Gateway, always)
			ike(s, silent, silent)
			s.Echoes = slices.Delete(s.Echoes, 1, 2)
			s.Host.Route.Interface, s.Host.Underlay.Carrier = "lte", evidence.No
		}, "peer_unreachable", ""},
		{"inner answers another way, peer dead", func(s *evidence.Snapshot) {
			elsewhere(s)
			echo(s, evidence.Gateway, always)
			echo(s, evidence.Reference, always)
			ike(s, silent, silent)
			s.Echoes = slices.Delete(s.Echoes, 1, 2)
		}, "peer_unreachable", ""},
		{"IKE silent, ping not permitted", func(s *evidence.Snapshot) {
			noTunnel(s)
			ike(s, silent, silent)
			s.Echoes = []evidence.EchoSeries{{Role: evidence.Gateway, Target: gateway, CannotLook: "needs CAP_NET_RAW"}}
		}, Undecided, ""},
		{"name does not resolve", func(s *evidence.Snapshot) {
			*s = evidence.Snapshot{Peer: "cloud", ResolveErr: "no such host"}
		}, Undecided, ""},
		{"a limit that is not declared judges nothing", func(s *evidence.Snapshot) {
			s.Echoes[0] = series(evidence.Gateway, gateway, 200, 300*time.Millisecond, every(3))
			s.Declared.MaxLoss, s.Declared.MaxRTT = 0, 0
		}, OK, ""},
		{"no permission for anything", func(s *evidence.Snapshot) {
			s.Echoes = []evidence.EchoSeries{{Role: evidence.Gateway, Target: gateway, CannotLook: "needs CAP_NET_RAW"}}
			s.IKE = []evidence.IKEPort{{Port: 500, CannotLook: "blocked"}, {Port: 4500, CannotLook: "blocked"}}
			s.Host = evidence.Host{Tunnel: evidence.Tunnel{CannotLook: "needs CAP_NET_ADMIN"}}
		}, Undecided, ""},
	}
	checkAll(t, tests)
}

func checkAll(t *testing.T, tests []evaluation) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := healthy()
			tt.change(s)
			r := Evaluate(s)
			if r.Diagnosis() != tt.want {
				t.Errorf("diagnosis %s, want %s", r.Diagnosis(), tt.want)
			}
			causes, info := 0, tt.info == ""
			for _, f := range r.Findings {
				if f.Role == Cause {
					causes++
				}
				info = info || f.Label == tt.info && f.Severity == Info
				if len(f.Evidence) == 0 {
					t.Errorf("%s quotes no evidence", f.Label)
				}
				for _, e := range append(slices.Clone(f.Evidence), f.Remedy) {
					for _, text := range []string{e.EN, e.ZH} {
						if text == "" || strings.Contains(text, "%!") {
							t.Errorf("%s: badly formatted text %q", f.Label, text)
						}
					}
				}
				if t.Failed() {
					t.Logf("%s %s %s", f.Role, f.Label, f.Evidence)
				}
			}
			if causes != 1 || r.Findings[0].Role != Cause {
				t.Errorf("%d causes, the first finding is %s; want exactly one, first", causes, r.Findings[0].Role)
			}
			if !info {
				t.Errorf("no info finding %s beside the cause", tt.info)
			}
		})
	}
}

// TestCaptureQuote wants the capture quoted for a one-way tunnel only when it
// saw what the sentence says: its window may reach back to before the silence.
func TestCaptureQuote(t *testing.T) {
	quoted := func(in uint64) bool {
		s := healthy()
		oneWay(s)
		// It worked until the last ten of the inner pings.
		echo(s, evidence.Inner, func(i int) bool { return i >= 30 })
		s.Host.Tunnel.LastIn = evidence.Some(now.Add(-11 * time.Second))
		for _, p := range s.IKE {
			for i := range p.Results {
				p.Results[i].Sent = now.Add(-time.Second)
			}
		}
		s.Capture = evidence.Capture{
			Mode: evidence.CaptureRing, Blind: evidence.No, Over: evidence.Seconds(12 * time.Second), Watched: evidence.Seconds(12 * time.Second),
			In:  evidence.WireTraffic{ESP: evidence.Traffic{Packets: in}},
			Out: evidence.WireTraffic{ESP: evidence.Traffic{Packets: 20}},
		}
		r := Evaluate(s)
		if r.Diagnosis() != "esp_blocked" {
			t.Fatalf("diagnosis %s, want esp_blocked", r.Diagnosis())
		}
		return slices.ContainsFunc(r.Findings[0].Evidence, func(e Text) bool {
			if strings.Contains(e.EN+e.ZH, "%!") {
				t.Errorf("badly formatted: %q %q", e.EN, e.ZH)
			}
			return strings.HasPrefix(e.EN, "on the wire")
		})
	}
	if !quoted(0) {
		t.Error("a capture without inbound ESP is not quoted")
	}
	if quoted(7) {
		t.Error("a capture with inbound ESP is quoted as one without")
	}
}

// TestRuleset checks what every rule must have, and that suppression cannot
// run in a circle.
func TestRuleset(t *testing.T) {
	seen := map[Label]bool{OK: true, Undecided: true}
	last := 0
	for _, r := range Rules() {
		if seen[r.Label] {
			t.Errorf("%s is there twice", r.Label)
		}
		seen[r.Label] = true
		if r.Precedence < last || r.Precedence > 99 {
			t.Errorf("%s: precedence %d after %d", r.Label, r.Precedence, last)
		}
		last = r.Precedence
		for _, x := range []string{r.Summary.EN, r.Summary.ZH, r.Remedy.EN, r.Remedy.ZH} {
			if x == "" {
				t.Errorf("%s lacks a text", r.Label)
			}
		}
	}
	for _, r := range Rules() {
		for _, e := range r.Explains {
			if !seen[e] {
				t.Errorf("%s explains %s, which is no label", r.Label, e)
			}
		}
		if explainedBy(r.Label)[r.Label] {
			t.Errorf("%s explains itself", r.Label)
		}
	}
}

// TestPure evaluates one snapshot twice and from a separately built equal one.
func TestPure(t *testing.T) {
	a, b := healthy(), healthy()
	oneWay(a)
	oneWay(b)
	ra, rb, again := Evaluate(a), Evaluate(b), Evaluate(a)
	for _, o := range []*Report{rb, again} {
		if len(o.Findings) != len(ra.Findings) || o.Findings[0].Evidence[0] != ra.Findings[0].Evidence[0] {
			t.Errorf("got %v and %v from equal snapshots", ra.Findings, o.Findings)
		}
	}
}

func BenchmarkEvaluate(b *testing.B) {
	s := healthy()
	oneWay(s)
	b.ReportAllocs()
	for b.Loop() {
		Evaluate(s)
	}
}
