package exporter

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"vpnprobe/evidence"
)

// reasons are the counters of one metric by the value of its last label.
type reasons struct {
	counters map[string]prometheus.Counter
	other    prometheus.Counter
}

// newReasons creates a counter for each value. The last one takes what is not
// in the list.
func newReasons(v *prometheus.CounterVec, values []string, labels ...string) reasons {
	r := reasons{counters: make(map[string]prometheus.Counter, len(values))}
	for _, value := range values {
		r.other = v.WithLabelValues(append(slices.Clone(labels), value)...)
		r.counters[value] = r.other
	}
	return r
}

func (r reasons) of(value string) prometheus.Counter {
	if c, ok := r.counters[value]; ok {
		return c
	}
	return r.other
}

// echoSeries counts the echo requests to all targets of one role.
type echoSeries struct {
	requests, lost, late, duplicates, reordered prometheus.Counter
	sendErrors, icmpErrors                      reasons
	rtt, variation, burst                       prometheus.Observer
	run                                         prometheus.Gauge
	targets                                     map[netip.Addr]*echoTarget
}

// echoTarget is what must be remembered of one target between two results.
type echoTarget struct {
	run      int // consecutive losses up to now
	answered bool
	lastRTT  time.Duration
}

func newEchoSeries(m *metrics, labels ...string) *echoSeries {
	return &echoSeries{
		requests:   m.icmpRequests.WithLabelValues(labels...),
		lost:       m.icmpLost.WithLabelValues(labels...),
		late:       m.icmpLate.WithLabelValues(labels...),
		duplicates: m.icmpDuplicates.WithLabelValues(labels...),
		reordered:  m.icmpReordered.WithLabelValues(labels...),
		sendErrors: newReasons(m.icmpSendErrors, sendReasons, labels...),
		icmpErrors: newReasons(m.icmpErrors, icmpReasons, labels...),
		rtt:        m.icmpRTT.WithLabelValues(labels...),
		variation:  m.icmpVariation.WithLabelValues(labels...),
		burst:      m.lossBurst.WithLabelValues(labels...),
		run:        m.lossRun.WithLabelValues(labels...),
		targets:    map[netip.Addr]*echoTarget{},
	}
}

func (s *echoSeries) observe(r evidence.EchoResult) {
	for _, event := range []struct {
		happened bool
		counter  prometheus.Counter
	}{{r.Late, s.late}, {r.Duplicate, s.duplicates}, {r.Reordered, s.reordered}} {
		if event.happened {
			event.counter.Inc()
		}
	}
	if r.ICMP != nil {
		s.icmpErrors.of(string(r.ICMP.Reason)).Inc()
	}
	switch r.Outcome {
	case evidence.EchoReply:
		s.requests.Inc()
		s.rtt.Observe(r.RTT.Seconds())
		s.answered(r)
	case evidence.EchoLost:
		s.requests.Inc()
		s.lost.Inc()
		s.target(r.Target).run++
		s.showRun()
	case evidence.EchoSendError:
		// It neither extends nor ends a run: it says nothing about the path.
		s.requests.Inc()
		s.sendErrors.of(string(r.Send)).Inc()
	}
}

func (s *echoSeries) answered(r evidence.EchoResult) {
	t := s.target(r.Target)
	if t.answered {
		s.variation.Observe((r.RTT - t.lastRTT).Abs().Seconds())
	}
	t.answered, t.lastRTT = true, r.RTT
	if t.run > 0 {
		s.burst.Observe(float64(t.run))
		t.run = 0
		s.showRun()
	}
}

func (s *echoSeries) target(a netip.Addr) *echoTarget {
	t := s.targets[a]
	if t == nil {
		t = &echoTarget{}
		s.targets[a] = t
	}
	return t
}

// forgetAllBut drops the targets that are probed no more, such as the former
// address of a gateway that is named by its DNS name: its run of losses has
// ended too.
func (s *echoSeries) forgetAllBut(now []evidence.EchoSeries) {
	for a, t := range s.targets {
		if slices.ContainsFunc(now, func(e evidence.EchoSeries) bool { return e.Target == a }) {
			continue
		}
		if t.run > 0 {
			s.burst.Observe(float64(t.run))
		}
		delete(s.targets, a)
	}
	s.showRun()
}

func (s *echoSeries) showRun() {
	longest := 0
	for _, t := range s.targets {
		longest = max(longest, t.run)
	}
	s.run.Set(float64(longest))
}

// ikeSeries counts the heartbeats on one port.
type ikeSeries struct {
	heartbeats, requests, timeouts, unsolicited prometheus.Counter
	responses, errors, sendErrors               reasons
	rtt                                         prometheus.Observer
	small, large                                sizeSeries
}

func newIKESeries(m *metrics, peer string, port uint16) *ikeSeries {
	labels := []string{peer, strconv.Itoa(int(port))}
	return &ikeSeries{
		heartbeats:  m.ikeHeartbeats.WithLabelValues(labels...),
		requests:    m.ikeRequests.WithLabelValues(labels...),
		timeouts:    m.ikeTimeouts.WithLabelValues(labels...),
		unsolicited: m.ikeUnsolicited.WithLabelValues(labels...),
		responses:   newReasons(m.ikeResponses, ikeCodes, labels...),
		errors:      newReasons(m.ikeErrors, ikeErrors, labels...),
		sendErrors:  newReasons(m.ikeSendErrors, sendReasons, labels...),
		rtt:         m.ikeRTT.WithLabelValues(labels...),
		small:       newSizeSeries(m, labels, "small"),
		large:       newSizeSeries(m, labels, "large"),
	}
}

func (s *ikeSeries) observe(r evidence.IKEResult) {
	s.requests.Add(float64(max(r.Requests, 0)))
	s.unsolicited.Add(float64(max(r.Unsolicited, 0)))
	switch r.Outcome {
	case evidence.IKEAnswered:
		s.responses.of(ikeCode(r.Notify)).Inc()
		if rtt, ok := r.RTT.Get(); ok {
			s.rtt.Observe(rtt.Duration().Seconds())
		}
	case evidence.IKESilent:
		s.timeouts.Inc()
	case evidence.IKESendError:
		s.sendErrors.of(string(r.Send)).Inc()
	case evidence.IKERefused, evidence.IKEProhibited, evidence.IKEUnreachable:
		s.errors.of(string(r.Outcome)).Inc()
	default:
		return // not an end of a heartbeat
	}
	s.heartbeats.Inc()
}

// ikeCode turns a notify, by its name in RFC 7296 or RFC 2408, into the value
// of a label.
func ikeCode(notify string) string {
	if notify == "" {
		return "no_notify"
	}
	return strings.ReplaceAll(strings.ToLower(notify), "-", "_")
}

// tcpSeries counts connection attempts to ports of inner hosts.
type tcpSeries struct {
	attempts, connected, refused, unanswered prometheus.Counter
	rtt                                      prometheus.Observer
}

func newTCPSeries(m *metrics, peer string) *tcpSeries {
	return &tcpSeries{
		attempts:   m.tcpAttempts.WithLabelValues(peer),
		connected:  m.tcpConnected.WithLabelValues(peer),
		refused:    m.tcpRefused.WithLabelValues(peer),
		unanswered: m.tcpUnanswered.WithLabelValues(peer),
		rtt:        m.tcpRTT.WithLabelValues(peer),
	}
}

func (s *tcpSeries) observe(r evidence.TCPResult) {
	if !r.Connected.Known() {
		return // could not try: not an attempt
	}
	s.attempts.Inc()
	switch {
	case r.Connected == evidence.Yes:
		s.connected.Inc()
	case r.Refused:
		s.refused.Inc()
	default:
		s.unanswered.Inc()
	}
	if rtt, ok := r.RTT.Get(); ok {
		s.rtt.Observe(rtt.Duration().Seconds())
	}
}

// trafficSeries count packets and their bytes.
type trafficSeries struct{ packets, bytes prometheus.Counter }

func (v trafficVecs) of(peer string) trafficSeries {
	return trafficSeries{v.packets.WithLabelValues(peer), v.bytes.WithLabelValues(peer)}
}

func (s trafficSeries) add(t evidence.Traffic) {
	s.packets.Add(float64(t.Packets))
	s.bytes.Add(float64(t.Bytes))
}
