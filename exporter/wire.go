package exporter

import (
	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/evidence"
)

// Values of the labels of what the capture sees, see [sendReasons].
var (
	captureModes   = []string{"bpf", "ring", "sa", "file", "off"}
	captureReasons = []string{"best", "configured", "no_permission", "no_kernel", "no_interface", "hidden", "rate", "failed"}
	directions     = []string{"receive", "transmit"}
	fragmentKinds  = []string{"esp", "esp_in_udp", "ike"}
	leakKinds      = []string{"rewritten", "own", "declared", "other"}
	rekeyResults   = []string{"completed", "failed"}
)

// captureVecs are what the capture counts, beside [wireVecs].
type captureVecs struct {
	dropped, forgotten, negotiations *prometheus.CounterVec // by peer
	icmpErrors                       *prometheus.CounterVec // by peer, reason
	leaked                           *prometheus.CounterVec // by peer, kind
	rekeys                           *prometheus.CounterVec // by peer, result

	// by peer, direction
	expected, lost, reordered, duplicates, discontinuities *prometheus.CounterVec
	requests, retransmissions, unanswered, dpdMissed       *prometheus.CounterVec
	fragments                                              *prometheus.CounterVec // and kind
	dpdRTT                                                 *prometheus.HistogramVec
}

func (m *metrics) addCapture() {
	by := []string{"peer", "direction"}
	m.capture = captureVecs{
		dropped:         m.counter("capture_dropped_packets_total", "Packets that the kernel dropped because the capture was too slow; while it grows, the capture proves no absence.", "peer"),
		forgotten:       m.counter("capture_flows_forgotten_total", "SPIs that found no room among those that are told apart, or had to leave it: forged ones, as a rule.", "peer"),
		negotiations:    m.counter("capture_ike_negotiations_total", "Negotiations of an IKE SA that were seen to begin.", "peer"),
		icmpErrors:      m.counter("capture_icmp_errors_total", "ICMP errors on the wire about packets between this host and the peer, by meaning.", "peer", "reason"),
		leaked:          m.counter("leaked_packets_total", "Packets in clear that left this host on the underlay for a remote subnet of the peer, by what their source is.", "peer", "kind"),
		rekeys:          m.counter("capture_ike_rekeys_total", "Exchanges seen to set up a further SA or to replace one, by their end.", "peer", "result"),
		expected:        m.counter("esp_expected_packets_total", "Packets of ESP and AH that were sent according to their sequence numbers, while the capture missed nothing itself.", by...),
		lost:            m.counter("esp_lost_packets_total", "Those of esp_expected_packets_total that were not seen: lost on the way from the peer, or before they left this host.", by...),
		reordered:       m.counter("esp_reordered_packets_total", "Packets of ESP and AH seen after one with a higher sequence number.", by...),
		duplicates:      m.counter("esp_duplicate_packets_total", "Packets of ESP and AH seen again.", by...),
		discontinuities: m.counter("esp_discontinuities_total", "Jumps of the sequence number of ESP and AH by more than 65536, which are not counted as loss.", by...),
		requests:        m.counter("capture_ike_requests_total", "Requests of the IKE daemons seen, retransmissions not counted.", by...),
		retransmissions: m.counter("capture_ike_retransmissions_total", "Retransmissions of requests of the IKE daemons seen.", by...),
		unanswered:      m.counter("capture_ike_unanswered_requests_total", "Requests of the IKE daemons that were given up: repeated, and no answer seen.", by...),
		dpdMissed:       m.counter("dpd_missed_total", "Requests of dead peer detection that were given up without an answer.", by...),
		dpdRTT:          m.histogram("dpd_rtt_seconds", "Time from a request of dead peer detection to its answer, as it passed the capture.", rttBuckets, true, by...),
		fragments:       m.counter("fragments_total", "IP fragments seen, by what they are parts of.", append(by, "kind")...),
	}
	m.receive = m.wire("receive", "from the peer")
	m.transmit = m.wire("transmit", "to the peer")
}

// captureSeries is what the capture counts of one peer.
type captureSeries struct {
	in, out                          wireSeries
	dropped, forgotten, negotiations prometheus.Counter
	icmpErrors, leaked, rekeys       reasons
}

func newCaptureSeries(m *metrics, peer string) captureSeries {
	v := m.capture
	return captureSeries{
		in:           m.receive.of(v, peer, directions[0]),
		out:          m.transmit.of(v, peer, directions[1]),
		dropped:      v.dropped.WithLabelValues(peer),
		forgotten:    v.forgotten.WithLabelValues(peer),
		negotiations: v.negotiations.WithLabelValues(peer),
		icmpErrors:   newReasons(v.icmpErrors, icmpReasons, peer),
		leaked:       newReasons(v.leaked, leakKinds, peer),
		rekeys:       newReasons(v.rekeys, rekeyResults, peer),
	}
}

// add counts one window of the capture.
func (s captureSeries) add(c evidence.Capture) {
	s.in.add(c.In, c.Talk.In, c.LossDoubt(true) == evidence.LossKnown)
	s.out.add(c.Out, c.Talk.Out, c.LossDoubt(false) == evidence.LossKnown)
	s.dropped.Add(float64(c.Dropped))
	s.forgotten.Add(float64(c.Forgotten))
	s.negotiations.Add(float64(c.Talk.Attempts))
	for reason, n := range c.ICMPErrors {
		s.icmpErrors.of(string(reason)).Add(float64(n))
	}
	for _, l := range c.Leaks {
		s.leaked.of(string(l.Kind)).Add(float64(l.Packets))
	}
	s.rekeys.of("completed").Add(float64(c.Talk.Rekeys))
	s.rekeys.of("failed").Add(float64(c.Talk.RekeysFailed))
}

// wireSeries is what the capture counts in one direction; of IKE, the requests
// that went that way and what became of them.
type wireSeries struct {
	esp, natt, ah                                          trafficSeries
	ike, keepalives, fragments                             prometheus.Counter
	expected, lost, reordered, duplicates, discontinuities prometheus.Counter
	requests, retransmissions, unanswered, dpdMissed       prometheus.Counter
	dpdRTT                                                 prometheus.Observer
	kinds                                                  reasons // of fragments
}

func (w wireVecs) of(v captureVecs, peer, direction string) wireSeries {
	return wireSeries{
		esp: w.esp.of(peer), natt: w.natt.of(peer), ah: w.ah.of(peer),
		ike:             w.ike.WithLabelValues(peer),
		keepalives:      w.keepalives.WithLabelValues(peer),
		fragments:       w.fragments.WithLabelValues(peer),
		expected:        v.expected.WithLabelValues(peer, direction),
		lost:            v.lost.WithLabelValues(peer, direction),
		reordered:       v.reordered.WithLabelValues(peer, direction),
		duplicates:      v.duplicates.WithLabelValues(peer, direction),
		discontinuities: v.discontinuities.WithLabelValues(peer, direction),
		requests:        v.requests.WithLabelValues(peer, direction),
		retransmissions: v.retransmissions.WithLabelValues(peer, direction),
		unanswered:      v.unanswered.WithLabelValues(peer, direction),
		dpdMissed:       v.dpdMissed.WithLabelValues(peer, direction),
		dpdRTT:          v.dpdRTT.WithLabelValues(peer, direction),
		kinds:           newReasons(v.fragments, fragmentKinds, peer, direction),
	}
}

func (s wireSeries) add(t evidence.WireTraffic, asked evidence.IKEDirection, lossKnown bool) {
	s.esp.add(t.ESP)
	s.natt.add(t.ESPInUDP)
	s.ah.add(t.AH)
	for _, n := range t.IKE {
		s.ike.Add(float64(n))
	}
	s.keepalives.Add(float64(t.NATKeepalives))
	s.fragments.Add(float64(t.Fragments.Total()))
	s.kinds.of("esp").Add(float64(t.Fragments.ESP.Total()))
	s.kinds.of("esp_in_udp").Add(float64(t.Fragments.ESPInUDP.Total()))
	s.kinds.of("ike").Add(float64(t.Fragments.IKE.Total()))
	if lossKnown {
		s.expected.Add(float64(t.Sequence.Expected))
		s.lost.Add(float64(t.Sequence.Lost))
	}
	s.reordered.Add(float64(t.Sequence.Reordered))
	s.duplicates.Add(float64(t.Sequence.Duplicates))
	s.discontinuities.Add(float64(t.Sequence.Discontinuities))
	s.requests.Add(float64(asked.Requests))
	s.retransmissions.Add(float64(asked.Retransmissions))
	s.unanswered.Add(float64(asked.Unanswered))
	s.dpdMissed.Add(float64(asked.DPD.Missed))
	for _, rtt := range asked.DPD.RTTs {
		s.dpdRTT.Observe(rtt.Duration().Seconds())
	}
}

var (
	descMode    = desc("capture_mode", "A constant 1, labelled with where the capture's counts come from and why from nothing better. No series before the first report.", "peer", "mode", "reason")
	descBlind   = desc("capture_blind", "Whether inbound ESP may bypass the capture, which then proves no absence. No series while that is not known.", "peer")
	descWatched = desc("capture_watched_ratio", "Part of the latest window that was listened to (0 to 1); below 1, the capture proves no absence. No series while no packets are seen.", "peer")
	descDepth   = desc("esp_reorder_depth_packets", "Greatest difference of a reordered packet's sequence number to the highest before it, in the latest window. No series while no packets are seen.",
		"peer", "direction")
	descIncomplete = desc("fragments_incomplete_packets", "Fragmented packets of the latest window that lack their beginning or end. No series while the capture may have missed that itself.",
		"peer", "direction")
)

var wireDescs = []*prometheus.Desc{descMode, descBlind, descWatched, descDepth, descIncomplete}

// collectWire reads the state of the capture off the latest window.
func collectWire(c evidence.Capture, gauge func(d *prometheus.Desc, value float64, labels ...string)) {
	mode, reason := captureState(c)
	gauge(descMode, 1, mode, reason)
	if c.Blind.Known() {
		gauge(descBlind, boolValue(c.Blind == evidence.Yes))
	}
	if !c.Seen() {
		return
	}
	if c.Over > 0 {
		gauge(descWatched, min(c.Watched.Duration().Seconds()/c.Over.Duration().Seconds(), 1))
	}
	for i, w := range []evidence.WireTraffic{c.In, c.Out} {
		gauge(descDepth, float64(w.Sequence.Depth), directions[i])
		if c.LossDoubt(i == 0) == evidence.LossKnown {
			f := w.Fragments
			gauge(descIncomplete, float64(f.Incomplete()), directions[i])
		}
	}
}

// captureState returns the capture's mode, and why it is no better one, as
// values of labels.
func captureState(c evidence.Capture) (mode, reason string) {
	mode, reason = known(string(c.Mode), captureModes), "best"
	switch {
	case c.Why != evidence.CaptureBest:
		reason = known(string(c.Why), captureReasons)
	case mode == "off": // which is never the best
		reason = "failed"
	}
	return mode, reason
}

// known returns the value if the list has it, else the list's last one.
func known(value string, values []string) string {
	for _, v := range values {
		if v == value {
			return v
		}
	}
	return values[len(values)-1]
}
