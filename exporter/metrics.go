package exporter

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of labels that are known in advance, so that every series exists,
// with the value 0, before anything happens. A value outside of its list is
// counted as the list's last one.
var (
	sendReasons = []string{
		"no_route", "prohibited", "local_firewall", "xfrm_block", "message_too_long",
		"no_buffer", "no_device", "no_address", "other",
	}
	icmpReasons = []string{
		"frag_needed", "net_unreachable", "host_unreachable", "admin_prohibited",
		"port_unreachable", "prot_unreachable", "ttl_exceeded", "other",
	}
	ikeErrors = []string{"refused", "prohibited", "unreachable"}
	ikeCodes  = []string{
		"invalid_major_version", "no_proposal_chosen", "invalid_ke_payload", "cookie",
		"invalid_syntax", "no_notify", "other_notify",
	}
)

// Bucket bounds: at most 12 per histogram, because text has no cheaper form of
// them; the native histogram beside them has the resolution.
var (
	rttBuckets       = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
	variationBuckets = []float64{.001, .005, .02, .05, .1, .5}
	burstBuckets     = []float64{1, 2, 3, 5, 10, 30, 100} // RFC 3357 loss periods, in probes
)

// metrics are the series that are kept as they are counted. Those that are
// read off the latest report are in [reportCollector].
type metrics struct {
	registry *prometheus.Registry
	vectors  []interface{ DeletePartialMatch(prometheus.Labels) int }

	reloadOK, reloadTime prometheus.Gauge
	transitions          *prometheus.CounterVec

	// by peer, path, role
	icmpRequests, icmpLost, icmpLate, icmpDuplicates, icmpReordered *prometheus.CounterVec
	icmpSendErrors, icmpErrors                                      *prometheus.CounterVec // and reason
	icmpRTT, icmpVariation, lossBurst                               *prometheus.HistogramVec
	lossRun                                                         *prometheus.GaugeVec

	// by peer, port
	ikeHeartbeats, ikeRequests, ikeTimeouts, ikeUnsolicited *prometheus.CounterVec
	ikeResponses                                            *prometheus.CounterVec // and code
	ikeErrors, ikeSendErrors                                *prometheus.CounterVec // and reason
	ikeRTT                                                  *prometheus.HistogramVec

	ladder ladderVecs
	mtu    mtuVecs

	// by peer
	tcpAttempts, tcpConnected, tcpRefused, tcpUnanswered *prometheus.CounterVec
	tcpRTT                                               *prometheus.HistogramVec

	// by peer
	receive, transmit   wireVecs
	capture             captureVecs
	tunnelIn, tunnelOut trafficVecs
}

// trafficVecs count packets and their bytes.
type trafficVecs struct{ packets, bytes *prometheus.CounterVec }

// wireVecs are what the capture counts in one direction.
type wireVecs struct {
	esp, natt, ah              trafficVecs
	ike, keepalives, fragments *prometheus.CounterVec
}

func newMetrics(version string) *metrics {
	m := &metrics{registry: prometheus.NewPedanticRegistry()}
	build := m.gauge("build_info", "A constant 1, labelled with the version of vpnprobe and of Go.", "version", "goversion")
	build.WithLabelValues(version, runtime.Version()).Set(1)
	m.reloadOK = m.gauge("config_last_reload_successful", "Whether the last attempt to load a configuration put it to use.").WithLabelValues()
	m.reloadTime = m.gauge("config_last_reload_success_timestamp_seconds", "When a configuration was last put to use, in Unix time.").WithLabelValues()
	m.transitions = m.counter("diagnosis_transitions_total", "Changes of the peer's diagnosis since its first report.", "peer")
	m.addICMP()
	m.addIKE()
	m.addLadder()
	m.addPathMTU()
	m.addTCP()
	m.addCapture()
	m.tunnelIn = m.traffic("tunnel_receive", "decrypted by the security associations from the peer, as the kernel counts them")
	m.tunnelOut = m.traffic("tunnel_transmit", "encrypted by the security associations to the peer, as the kernel counts them")
	return m
}

func (m *metrics) addICMP() {
	by := []string{"peer", "path", "role"}
	m.icmpRequests = m.counter("icmp_requests_total", "Echo requests that have ended: in a reply, in a loss or in a send error.", by...)
	m.icmpLost = m.counter("icmp_lost_total", "Echo requests without a reply within the timeout.", by...)
	m.icmpLate = m.counter("icmp_late_total", "Replies after the timeout, to requests that had been counted as lost.", by...)
	m.icmpDuplicates = m.counter("icmp_duplicates_total", "Further replies to requests that had been answered.", by...)
	m.icmpReordered = m.counter("icmp_reordered_total", "Replies that arrived out of the order of their requests.", by...)
	m.icmpSendErrors = m.counter("icmp_send_errors_total", "Echo requests that never left this host, by reason.", append(by, "reason")...)
	m.icmpErrors = m.counter("icmp_errors_received_total", "ICMP errors that came back for echo requests, by meaning.", append(by, "reason")...)
	m.icmpRTT = m.histogram("icmp_rtt_seconds", "Round-trip time of answered echo requests.", rttBuckets, true, by...)
	m.icmpVariation = m.histogram("icmp_rtt_variation_seconds", "Difference between the round-trip times of consecutive answered echo requests.", variationBuckets, true, by...)
	m.lossBurst = m.histogram("loss_burst_probes", "Length of runs of consecutive lost echo requests, counted when a run ends.", burstBuckets, false, by...)
	m.lossRun = m.gauge("loss_run_probes", "Echo requests lost since the last reply; of several targets, the longest run.", by...)
}

func (m *metrics) addIKE() {
	by := []string{"peer", "port"}
	m.ikeHeartbeats = m.counter("ike_heartbeats_total", "IKE heartbeats that have ended: in a response, a timeout, an error or a send error.", by...)
	m.ikeRequests = m.counter("ike_requests_total", "IKE datagrams sent, retransmissions included.", by...)
	m.ikeResponses = m.counter("ike_responses_total", "IKE heartbeats that the peer answered, by the notify in its answer.", append(by, "code")...)
	m.ikeTimeouts = m.counter("ike_timeouts_total", "IKE heartbeats to which nothing came back.", by...)
	m.ikeErrors = m.counter("ike_errors_total", "IKE heartbeats that ended in an ICMP error: refused by the peer, prohibited by a filter, or undeliverable.", append(by, "reason")...)
	m.ikeSendErrors = m.counter("ike_send_errors_total", "IKE heartbeats that never left this host, by reason.", append(by, "reason")...)
	m.ikeUnsolicited = m.counter("ike_unsolicited_total", "Datagrams that came to a heartbeat's port and were no valid answer to it.", by...)
	m.ikeRTT = m.histogram("ike_rtt_seconds", "Round-trip time of answered IKE heartbeats.", rttBuckets, true, by...)
}

func (m *metrics) addTCP() {
	m.tcpAttempts = m.counter("tcp_attempts_total", "TCP connection attempts to ports of inner hosts.", "peer")
	m.tcpConnected = m.counter("tcp_connected_total", "TCP connection attempts that connected.", "peer")
	m.tcpRefused = m.counter("tcp_refused_total", "TCP connection attempts that the inner host itself refused.", "peer")
	m.tcpUnanswered = m.counter("tcp_unanswered_total", "TCP connection attempts that neither connected nor were refused.", "peer")
	m.tcpRTT = m.histogram("tcp_rtt_seconds", "Time from the first packet of a TCP connection to its answer.", rttBuckets, true, "peer")
}

func (m *metrics) wire(direction, from string) wireVecs {
	name := func(what string) string { return "capture_" + what + "_" + direction }
	return wireVecs{
		esp:        m.traffic(name("esp"), "of ESP (IP protocol 50) seen "+from),
		natt:       m.traffic(name("natt"), "of ESP in UDP (RFC 3948) seen "+from),
		ah:         m.traffic(name("ah"), "of AH (IP protocol 51) seen "+from),
		ike:        m.counter(name("ike")+"_packets_total", "Packets of IKE seen "+from+".", "peer"),
		keepalives: m.counter(name("nat_keepalive")+"_packets_total", "Packets of NAT keepalives (RFC 3948) seen "+from+".", "peer"),
		fragments:  m.counter(name("fragments")+"_packets_total", "Packets that are fragments of IKE, ESP or AH, seen "+from+".", "peer"),
	}
}

func (m *metrics) traffic(name, what string) trafficVecs {
	return trafficVecs{
		packets: m.counter(name+"_packets_total", "Packets "+what+".", "peer"),
		bytes:   m.counter(name+"_bytes_total", "Bytes "+what+".", "peer"),
	}
}

func (m *metrics) counter(name, help string, labels ...string) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.register(v, v.MetricVec)
	return v
}

func (m *metrics) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
	m.register(v, v.MetricVec)
	return v
}

func (m *metrics) histogram(name, help string, buckets []float64, native bool, labels ...string) *prometheus.HistogramVec {
	opts := prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}
	if native {
		opts.NativeHistogramBucketFactor = 1.1
		opts.NativeHistogramMaxBucketNumber = 100
	}
	v := prometheus.NewHistogramVec(opts, labels)
	m.register(v, v.MetricVec)
	return v
}

func (m *metrics) register(c prometheus.Collector, v *prometheus.MetricVec) {
	m.registry.MustRegister(c)
	m.vectors = append(m.vectors, v)
}

// remove ends every series of a peer.
func (m *metrics) remove(peer string) {
	for _, v := range m.vectors {
		v.DeletePartialMatch(prometheus.Labels{"peer": peer})
	}
}

const namespace = "vpnprobe"
