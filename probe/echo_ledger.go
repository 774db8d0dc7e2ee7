package probe

import (
	"slices"
	"time"

	"vpnprobe/evidence"
)

// echoLedger keeps the account of one target's echo requests: each is emitted
// once, as answered, lost or not sent; what is heard of it later is an event.
type echoLedger struct {
	timeout time.Duration
	blank   evidence.EchoResult // names the target
	emit    func(evidence.EchoResult)
	// requests are those that something may still be heard of, in the order
	// of sending. There are as many as intervals in a request's life: few.
	requests []*echoRequest
}

type echoRequest struct {
	n       int // counts from 0
	started time.Time
	sent    time.Time // zero until it left this host
	state   echoState
	// overtaken is when the first reply to a later request came, if that was
	// before any to this one.
	overtaken time.Time
	icmp      *evidence.ICMPError
}

type echoState uint8

const (
	echoInFlight echoState = iota
	echoLost
	echoAnswered
)

func newEchoLedger(cfg EchoConfig, emit func(evidence.EchoResult)) *echoLedger {
	return &echoLedger{
		timeout: cfg.Timeout,
		blank:   evidence.EchoResult{Target: cfg.Target, Role: cfg.Role},
		emit:    emit,
	}
}

// start opens the account of request n.
func (l *echoLedger) start(n int, at time.Time) {
	l.requests = append(l.requests, &echoRequest{n: n, started: at})
}

// sent says that request n left this host.
func (l *echoLedger) sent(n int, at time.Time) {
	if r := l.find(n); r != nil {
		r.sent = at
	}
}

// reply says that a reply to request n came.
func (l *echoLedger) reply(n int, rtt time.Duration) {
	r := l.find(n)
	if r == nil {
		return
	}
	if r.state == echoInFlight && rtt > l.timeout {
		l.lose(r)
	}
	out := l.result(r)
	out.RTT = rtt
	switch r.state {
	case echoInFlight:
		out.Outcome, out.ICMP = evidence.EchoReply, r.icmp
	case echoLost:
		out.Late = true
	case echoAnswered:
		out.Duplicate = true
	}
	if !out.Duplicate {
		out.Reordered = l.overtake(r, r.sent.Add(rtt))
	}
	r.state = echoAnswered
	l.emit(out)
}

// overtake notes when the first reply to a request arrived, and reports
// whether it is reordered: behind that to a later request (RFC 4737 section
// 3). Within the slack that may be the order of our own goroutines.
func (l *echoLedger) overtake(r *echoRequest, arrived time.Time) bool {
	for _, earlier := range l.requests {
		if earlier.n < r.n && earlier.overtaken.IsZero() {
			earlier.overtaken = arrived
		}
	}
	return !r.overtaken.IsZero() && arrived.After(r.overtaken.Add(echoSlack))
}

// icmp says that an ICMP error came, and attaches it to the request that it
// quotes. The first error about a request is the one that counts.
func (l *echoLedger) icmp(e echoError) {
	r := l.quoted(e)
	if r == nil || r.icmp != nil {
		return
	}
	r.icmp = &e.icmp
	if r.state != echoInFlight {
		out := l.result(r)
		out.ICMP = r.icmp
		l.emit(out)
	}
}

// quoted returns the request that an ICMP error is about. The timestamp that
// pro-bing puts into each request tells ours from those of other programs to
// the same address. A hop that quotes as little as RFC 792 asks for leaves it
// out; then the error is taken to be about the newest request that it can be
// about, because errors mostly come before the next request is sent.
func (l *echoLedger) quoted(e echoError) *echoRequest {
	for _, r := range slices.Backward(l.requests) {
		if e.stamp.IsZero() {
			if r.state == echoInFlight && r.icmp == nil {
				return r
			}
			continue
		}
		// Wall clocks, as is the stamp. An error may be read before the send
		// has returned.
		began, ended := r.started.Round(0), r.sent.Round(0)
		if !e.stamp.Before(began) && (ended.IsZero() || !e.stamp.After(ended)) {
			return r
		}
	}
	return nil
}

// end closes the account of request n, of which nothing will be heard any
// more. An error of one that was not sent is why not. One that was sent, and
// failed to be listened for, was neither answered nor lost: it is not counted.
func (l *echoLedger) end(n int, at time.Time, err error) {
	i := slices.IndexFunc(l.requests, func(r *echoRequest) bool { return r.n == n })
	if i < 0 {
		return
	}
	r := l.requests[i]
	l.requests = slices.Delete(l.requests, i, i+1)
	if err == nil || !r.sent.IsZero() {
		return
	}
	r.sent = at
	out := l.result(r)
	out.Outcome = evidence.EchoSendError
	out.Send = sendReason(err)
	l.emit(out)
}

// expire counts as lost what was not answered in time.
func (l *echoLedger) expire(now time.Time) {
	for _, r := range l.requests {
		if r.pending() && !now.Before(l.expiry(r)) {
			l.lose(r)
		}
	}
}

func (l *echoLedger) lose(r *echoRequest) {
	r.state = echoLost
	out := l.result(r)
	out.Outcome, out.ICMP = evidence.EchoLost, r.icmp
	l.emit(out)
}

// nextExpiry returns when to call expire; false if nothing is in flight.
func (l *echoLedger) nextExpiry() (time.Time, bool) {
	for _, r := range l.requests {
		if r.pending() {
			return l.expiry(r), true
		}
	}
	return time.Time{}, false
}

// unresolved returns the number of requests that were not emitted yet.
func (l *echoLedger) unresolved() int {
	n := 0
	for _, r := range l.requests {
		if r.state == echoInFlight {
			n++
		}
	}
	return n
}

// pending reports whether the request waits for an answer.
func (r *echoRequest) pending() bool { return r.state == echoInFlight && !r.sent.IsZero() }

func (l *echoLedger) expiry(r *echoRequest) time.Time { return r.sent.Add(l.timeout + echoSlack) }

func (l *echoLedger) find(n int) *echoRequest {
	for _, r := range l.requests {
		if r.n == n {
			return r
		}
	}
	return nil
}

func (l *echoLedger) result(r *echoRequest) evidence.EchoResult {
	out := l.blank
	out.Sent = r.sent
	return out
}

// echoError is an ICMP error about an echo request.
type echoError struct {
	icmp evidence.ICMPError
	// stamp is the time that the quoted request carries; zero if the quotation
	// ends before it.
	stamp time.Time
}
